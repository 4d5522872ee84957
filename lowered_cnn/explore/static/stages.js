// The network as a row of stages, and one of them in detail: what the forward and the backward pass share.

import { h, times } from "./dom.js";
import { thumbnails } from "./maps.js";

/** The name of the last stage, which makes probabilities of the network's outputs; a layer may be named softmax. */
export const SOFTMAX = "";

/** Return the row of stages of a view, of which one is chosen; arrays(name) is what is shown of each, and ends that of the last. */
function stageRow(store, view, arrays, ends) {
  const { network, stage } = store.state;
  const choose = (chosen) => {
    history.replaceState(null, "", `#${view}/${encodeURIComponent(chosen)}`);
    store.set({ stage: chosen });
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
  const last = card(SOFTMAX, "output", [network.classes.length], thumbnails(ends, { most: 1, side: 28, label: "softmax" }));
  return h("div", { class: "stages", role: "group", "aria-label": "Stages of the network" }, cards, last);
}

/** Press the button of the chosen stage in a row of stages, and bring it into sight. */
function pressStage(row, name) {
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

/**
 * Show the stages in an element, as the view of that name, below what leads to them; returns what ends it. Of each stage
 * the row shows arrays(trace, name), and of the last one trace[ends]; details has the functions that show one stage, by the
 * kind of its view, and otherwise shows all others.
 */
export function stagesView(store, element, { view, lead = [], arrays, ends, details, otherwise }) {
  const row = h("div", { class: "waiting" }, "Loading the network …");
  const detail = h("div", { class: "detail" });
  element.replaceChildren(...lead, row, detail);
  const showDetail = () => {
    const { trace, network, stage: name } = store.state;
    if (!trace) return;
    pressStage(row.firstElementChild, name);
    const stage = network.stages.find((each) => each.name === name);
    const build = details[stage ? stage.view : "softmax"] ?? otherwise;
    detail.replaceChildren(build(store, stage));
  };
  const showAll = () => {
    const { trace } = store.state;
    if (!trace) return;
    const scrolled = row.firstElementChild?.scrollLeft;
    row.className = "";
    row.replaceChildren(stageRow(store, view, (name) => arrays(trace, name), trace[ends]));
    row.firstElementChild.scrollLeft = scrolled ?? 0;
    showDetail();
  };
  let width = element.clientWidth;
  const resized = new ResizeObserver(() => {
    if (Math.abs(element.clientWidth - width) < 8) return;
    width = element.clientWidth;
    showDetail();
  });
  resized.observe(element);
  const listeners = [store.on(["trace"], showAll), store.on(["stage"], showDetail)];
  showAll();
  return () => {
    resized.disconnect();
    for (const end of listeners) end();
  };
}
