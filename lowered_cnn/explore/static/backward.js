// The backward pass: the gradients of all stages as a row, and what one of them does with its gradient.

import { backwardConvolution } from "./backward-conv.js";
import { backwardDense } from "./backward-dense.js";
import { backwardMaps } from "./backward-maps.js";
import { backwardPool } from "./backward-pool.js";
import { backwardSoftmax } from "./backward-softmax.js";
import { h } from "./dom.js";
import { pressStage, SOFTMAX, stageRow } from "./forward.js";
import { gradientOf } from "./source.js";

const BACKWARD_DETAILS = { conv: backwardConvolution, max_pool: backwardPool, avg_pool: backwardPool, dense: backwardDense };

/** Show the backward pass in an element; returns what ends it. */
export function backwardView(store, element) {
  const row = h("div", { class: "backward-row" });
  const detail = h("div", { class: "detail" });
  const way = h(
    "p",
    { class: "caption" },
    "Read from right to left: each stage takes dJ/dY, shown here, from its right, and hands dJ/dX on to its left.",
  );
  element.replaceChildren(way, row, detail);
  if (!location.hash.includes("/") && !store.state.pointed.backward) store.state.stage = SOFTMAX;
  store.state.pointed.backward = true;
  const showDetail = () => {
    const { trace, network, stage: name } = store.state;
    if (!trace) return;
    pressStage(row.firstElementChild, name);
    const stage = network.stages.find((each) => each.name === name);
    const build = name === SOFTMAX ? backwardSoftmax : (BACKWARD_DETAILS[stage.view] ?? backwardMaps);
    detail.replaceChildren(build(store, stage));
  };
  const showAll = () => {
    const { trace } = store.state;
    if (!trace) return;
    const scrolled = row.firstElementChild?.scrollLeft;
    row.replaceChildren(stageRow(store, "backward", (each) => gradientOf(trace, each), trace.doutputs));
    row.firstElementChild.scrollLeft = scrolled ?? row.firstElementChild.scrollWidth;
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
