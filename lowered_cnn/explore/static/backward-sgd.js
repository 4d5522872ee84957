// One step of plain SGD on this one image: the weights before and after, and what the network says then.

import { argmax, largest, largestOnes } from "./arrays.js";
import { namedGrid, namedNumber, remembered } from "./backward-parts.js";
import { diverging } from "./colour.js";
import { bar, h, percent, short } from "./dom.js";
import { explain } from "./explain.js";
import { legend, mapFigure } from "./maps.js";
import { parameterOf } from "./source.js";

const BACKWARD_MOST_FILTERS = 24;
const BACKWARD_MOST_BARS = 10;

/** Return the step in which the weights of a stage move; of a convolution, the filters of one channel are shown. */
export function sgdStep(store, stage, channel = 0) {
  const { network, trace } = store.state;
  const chosen = remembered(store, "rate", { rate: 2 });
  const weight = parameterOf(network.weights, stage, "weight");
  const gradient = parameterOf(trace.gradients, stage, "weight");
  const moved = { shape: weight.shape, data: new Float32Array(weight.data.length) };
  const most = largest(weight.data);
  const shown = [
    ["Before", "W", weight, diverging(most)],
    ["Gradient", "dW", gradient, diverging(largest(gradient.data))],
    ["After", "W − η · dW", moved, diverging(most)],
  ].map(([title, more, array, heat]) => ({ title, more, grids: weightGrids(array, channel, heat, `sgd-${title.toLowerCase()}`) }));
  const change = h("p", { class: "caption" });
  const effect = h("div", { class: "effect" });
  const name = h("output", { class: "value" });
  const slider = h("input", {
    type: "range",
    min: "0",
    max: String(trace.after.length - 1),
    value: String(chosen.rate),
    "aria-label": "Learning rate",
    oninput: () => {
      chosen.rate = Number(slider.value);
      draw();
    },
  });
  function draw() {
    const after = trace.after[chosen.rate];
    moved.data.forEach((_, k) => (moved.data[k] = weight.data[k] - after.rate * gradient.data[k]));
    shown[2].grids.forEach((grid) => grid.draw());
    name.textContent = `η = ${after.rate}`;
    slider.setAttribute("aria-valuetext", name.textContent);
    const furthest = after.rate * largest(gradient.data);
    change.textContent = `The weight that moves furthest moves by ${short(furthest)}; the largest weight is ${short(most)}.`;
    effect.replaceChildren(...effectOf(network, trace, after));
  }
  draw();
  return [
    h(
      "p",
      {},
      "One plain step on this one image, of all parameters at once: no momentum, no decay, no other images. A training ",
      "averages the gradients of a batch instead, and takes many smaller steps.",
    ),
    h("div", { class: "tools" }, h("label", {}, "Learning rate ", slider), name),
    h(
      "div",
      { class: "maps" },
      shown.map(({ title, more, grids }) =>
        mapFigure(
          title,
          more,
          h(
            "div",
            { class: "filters" },
            grids.map((grid) => grid.element),
          ),
        ),
      ),
    ),
    h("div", { class: "tools" }, legend(most, "W"), legend(largest(gradient.data), "dW")),
    change,
    h("h3", {}, "What the network says then"),
    effect,
    explain({ equations: ["sgd"], shapes: [["W, dW", weight.shape.join(" × ")]], codes: [["Plain SGD", network.code.sgd]] }),
  ];
}

/** Return the filters of a channel as grids (K, C, KH, KW), or one grid of a matrix. */
function weightGrids({ shape, data }, channel, heat, name) {
  if (shape.length !== 4) {
    const [rows, cols] = [shape[0], data.length / shape[0]];
    return [namedGrid({ name, rows, cols, value: (r, c) => data[r * cols + c], heat, label: name, width: 380, height: 240, most: 8 })];
  }
  const [filters, channels, rows, cols] = shape;
  const plane = Math.min(channel, channels - 1);
  return Array.from({ length: Math.min(filters, BACKWARD_MOST_FILTERS) }, (_, k) =>
    namedGrid({
      name,
      rows,
      cols,
      value: (a, b) => data[((k * channels + plane) * rows + a) * cols + b],
      heat,
      label: `${name}, filter ${k}`,
      width: 44,
    }),
  );
}

function effectOf(network, trace, after) {
  const [before, then] = [trace.probabilities.data, after.probabilities.data];
  const sizes = Array.from(before, (share, k) => (k === trace.label ? Infinity : Math.max(share, then[k])));
  const says = (data) => network.classes[argmax(data)];
  return [
    h(
      "ol",
      { class: "before-after", "aria-label": "Probabilities before and after the step" },
      largestOnes(sizes, BACKWARD_MOST_BARS).map((k) =>
        h(
          "li",
          { "data-class": k, class: k === trace.label ? "chosen" : null },
          h("span", { class: "name", title: network.classes[k] }, network.classes[k]),
          h("span", { class: "two" }, bar("share-bar before", before[k]), bar("share-bar accent", then[k])),
          namedNumber("probability-before", before[k], percent),
          h("span", { "aria-hidden": "true" }, "→"),
          namedNumber("probability-after", then[k], percent),
        ),
      ),
    ),
    h(
      "p",
      { class: "total" },
      `The true label is ${network.classes[trace.label]}. The network said ${says(before)}, and says ${says(then)} after the step. J: `,
      namedNumber("loss-before", trace.loss, short),
      " → ",
      h("strong", {}, namedNumber("loss-after", after.loss, short)),
      after.loss > trace.loss ? " (it grew: this step was too long)" : "",
    ),
  ];
}
