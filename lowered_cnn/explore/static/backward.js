// The backward pass: the gradients of all stages as a row, and what one of them does with its gradient.

import { backwardConvolution } from "./backward-conv.js";
import { backwardDense } from "./backward-dense.js";
import { backwardMaps } from "./backward-maps.js";
import { backwardPool } from "./backward-pool.js";
import { backwardSoftmax } from "./backward-softmax.js";
import { h } from "./dom.js";
import { SOFTMAX, stageRow } from "./forward.js";
import { gradientOf } from "./source.js";

const BACKWARD_DETAILS = { conv: backwardConvolution, max_pool: backwardPool, avg_pool: backwardPool, dense: backwardDense };

/** Show the backward pass in an element; returns what ends it. */
export function backwardView(store, element) {
  const row = h("div", { class: "backward-row" });
  const detail = h("div", { class: "detail" });
  const way = h("p", { class: "caption" }, "Read from right to left: each stage takes dJ/dY, shown here, from its right, and hands dJ/dX on to its left.");
  element.replaceChildren(way, row, detail);
  if (!location.hash.includes("/") && !store.state.pointed.backward) store.state.stage = SOFTMAX;
  store.state.pointed.backward = true;
  const update = () => {
    const { trace, network, stage: name } = store.state;
    if (!trace) return;
    const scrolled = row.firstChild?.scrollLeft;
    row.replaceChildren(stageRow(store, (each) => gradientOf(trace, each), trace.doutputs));
    row.firstChild.scrollLeft = scrolled ?? row.firstChild.scrollWidth;
    showChosenStage(row.firstChild);
    const stage = network.stages.find((each) => each.name === name);
    const build = name === SOFTMAX ? backwardSoftmax : (BACKWARD_DETAILS[stage.view] ?? backwardMaps);
    detail.replaceChildren(build(store, stage));
  };
  const ends = store.on(["trace", "stage", "step"], update);
  update();
  return ends;
}

/** Scroll a row of stages, not the page, so that the chosen one is in sight. */
function showChosenStage(stages) {
  const card = stages.querySelector('[aria-pressed="true"]');
  if (!card) return;
  const [left, right] = [card.offsetLeft - stages.offsetLeft, card.offsetLeft - stages.offsetLeft + card.offsetWidth];
  if (left < stages.scrollLeft) stages.scrollLeft = left;
  else if (right > stages.scrollLeft + stages.clientWidth) stages.scrollLeft = right - stages.clientWidth;
}
