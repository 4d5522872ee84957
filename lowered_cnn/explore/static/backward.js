// The backward pass: the gradients of all stages as a row, and what one of them does with its gradient.

import { backwardConvolution } from "./backward-conv.js";
import { backwardDense } from "./backward-dense.js";
import { backwardMaps } from "./backward-maps.js";
import { backwardPool } from "./backward-pool.js";
import { backwardSoftmax } from "./backward-softmax.js";
import { h } from "./dom.js";
import { gradientOf } from "./source.js";
import { SOFTMAX, stagesView } from "./stages.js";

const BACKWARD_DETAILS = {
  conv: backwardConvolution,
  max_pool: backwardPool,
  avg_pool: backwardPool,
  dense: backwardDense,
  softmax: backwardSoftmax,
};

/** Show the backward pass in an element; returns what ends it. */
export function backwardView(store, element) {
  const way = "Read from right to left: each stage takes dJ/dY, shown here, from its right, and hands dJ/dX on to its left.";
  if (!location.hash.includes("/") && !store.state.pointed.backward) store.state.stage = SOFTMAX;
  store.state.pointed.backward = true;
  return stagesView(store, element, {
    view: "backward",
    lead: [h("p", { class: "caption" }, way)],
    arrays: gradientOf,
    ends: "doutputs",
    details: BACKWARD_DETAILS,
    otherwise: backwardMaps,
  });
}
