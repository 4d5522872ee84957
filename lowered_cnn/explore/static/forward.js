// The forward pass: the network as a row of stages, and one of them in detail.

import { h, times } from "./dom.js";
import { convStage } from "./stage-conv.js";
import { denseStage } from "./stage-dense.js";
import { mapStage } from "./stage-maps.js";
import { poolStage } from "./stage-pool.js";
import { softmaxStage } from "./stage-softmax.js";
import { outputOf } from "./source.js";
import { thumbnails } from "./maps.js";

export const SOFTMAX = ""; // what no stage is named, whereas one may be called softmax

const DETAILS = { conv: convStage, max_pool: poolStage, avg_pool: poolStage, dense: denseStage };

/** Return the row of stages of a view, of which one is chosen; arrays(name) is what is shown of each. */
export function stageRow(store, view, arrays, ends) {
  const { network, stage } = store.state;
  const choose = (name) => {
    history.replaceState(null, "", `#${view}/${encodeURIComponent(name)}`);
    store.set({ stage: name });
  };
  const card = (name, kind, shape, picture) =>
    h(
      "button",
      {
        type: "button",
        class: "stage",
        "aria-pressed": String(name === stage),
        "data-stage": name,
        onclick: () => choose(name),
      },
      h("strong", {}, name === SOFTMAX ? "softmax" : name),
      h("span", { class: "caption" }, `${kind} · ${times(shape)}`),
      picture,
    );
  const cards = network.stages.map((each) =>
    card(each.name, each.kind, each.output_shape, thumbnails(arrays(each.name), { most: 6, side: 28, label: each.name })),
  );
  const last = ends ? card(SOFTMAX, "output", [network.classes.length], thumbnails(ends, { most: 1, side: 28, label: "softmax" })) : null;
  return h("div", { class: "stages", role: "group", "aria-label": "Stages of the network" }, cards, last);
}

/** Press the button of the chosen stage in a row of stages, and bring it into sight. */
export function pressStage(row, name) {
  for (const card of row.querySelectorAll("[data-stage]")) {
    const chosen = card.dataset.stage === name;
    card.setAttribute("aria-pressed", String(chosen));
    if (chosen)
      row.scrollLeft = Math.max(
        Math.min(row.scrollLeft, card.offsetLeft - row.offsetLeft - 24),
        card.offsetLeft + card.offsetWidth - row.offsetLeft - row.clientWidth + 24,
      );
  }
}

/** Show the forward pass in an element; returns what ends it. */
export function forwardView(store, element) {
  const row = h("div", { class: "waiting" }, "Loading the network …");
  const detail = h("div", { class: "detail" });
  element.replaceChildren(row, detail);
  const showDetail = () => {
    const { trace, network, stage: name } = store.state;
    if (!trace) return;
    pressStage(row.firstElementChild, name);
    const stage = network.stages.find((each) => each.name === name);
    const build = name === SOFTMAX ? softmaxStage : (DETAILS[stage.view] ?? mapStage);
    detail.replaceChildren(build(store, stage));
  };
  const showAll = () => {
    const { trace } = store.state;
    if (!trace) return;
    const scrolled = row.firstElementChild?.scrollLeft ?? 0;
    row.className = "";
    row.replaceChildren(stageRow(store, "forward", (each) => outputOf(trace, each), trace.probabilities));
    row.firstElementChild.scrollLeft = scrolled;
    showDetail();
  };
  let width = element.clientWidth;
  const resized = new ResizeObserver(() => {
    if (Math.abs(element.clientWidth - width) < 8) return;
    width = element.clientWidth;
    showDetail();
  });
  resized.observe(element);
  const ends = [store.on(["trace", "step"], showAll), store.on(["stage"], showDetail), () => resized.disconnect()];
  showAll();
  return () => ends.forEach((end) => end());
}
