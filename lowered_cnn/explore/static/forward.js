// The forward pass: the network as a row of stages, and one of them in detail.

import { outputOf } from "./source.js";
import { convStage } from "./stage-conv.js";
import { denseStage } from "./stage-dense.js";
import { mapStage } from "./stage-maps.js";
import { poolStage } from "./stage-pool.js";
import { softmaxStage } from "./stage-softmax.js";
import { stagesView } from "./stages.js";

const FORWARD_DETAILS = { conv: convStage, max_pool: poolStage, avg_pool: poolStage, dense: denseStage, softmax: softmaxStage };

/** Show the forward pass in an element; returns what ends it. */
export function forwardView(store, element) {
  const shown = { view: "forward", arrays: outputOf, ends: "probabilities", details: FORWARD_DETAILS, otherwise: mapStage };
  return stagesView(store, element, shown);
}
