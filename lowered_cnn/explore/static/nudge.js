// "Do not believe it": one weight is nudged, and J answers; the gradient beside the finite difference and its bound.

import { largest, placeIn, strongest } from "./arrays.js";
import { namedGrid, namedNumber } from "./backward-parts.js";
import { announce, bar, h, short, stepper, times } from "./dom.js";
import { explain } from "./explain.js";
import { cellMark } from "./grid.js";
import { channel, legend } from "./maps.js";
import { NudgeCurve } from "./nudge-curve.js";

/** Show the view in an element; returns what ends it. */
export function nudgeView(store, element) {
  const picker = h("div", { class: "picker" });
  const result = h("div", { class: "nudged", "aria-live": "polite" });
  element.replaceChildren(
    h("h2", {}, "Do not believe it: nudge a weight, and see"),
    h(
      "p",
      {},
      "The backward pass claims how J changes with each weight. Pick one. The package then changes it a little, up and ",
      "down, computes J again, and compares.",
    ),
    h("div", { class: "nudge-bench" }, picker, result),
  );
  let asked = 0;
  const nudge = async () => {
    const { source, image, trace, step, nudged } = store.state;
    const turn = ++asked;
    result.classList.add("waiting");
    try {
      const found = await source.nudge({ image, label: trace.label, step, ...nudged });
      if (turn !== asked) return;
      result.replaceChildren(...nudgeResult(store, found, result.clientWidth));
      announce(found.agrees ? "The gradient agrees with the finite difference" : "The gradient does not agree");
    } catch (error) {
      if (turn === asked) result.replaceChildren(h("p", { class: "failure", role: "alert" }, error.message));
    } finally {
      if (turn === asked) result.classList.remove("waiting");
    }
  };
  const pick = (parameter, index) => {
    store.state.nudged = { parameter, index };
    picker.replaceChildren(...nudgePicker(store, pick));
    nudge();
  };
  const update = () => {
    if (!store.state.trace) return;
    const { parameter, index } = nudgeStart(store.state);
    pick(parameter, index);
  };
  const ends = store.on(["trace"], update);
  update();
  return () => {
    asked++;
    ends();
  };
}

/** Return the weight that was picked last, if it is at hand, or else one whose gradient is large. */
function nudgeStart({ source, image, trace, nudged }) {
  const saved = source.nudgesOf(image);
  const atHand = ({ parameter, index }) => !saved || saved.some((each) => each.parameter === parameter && each.index === index);
  if (nudged && nudged.parameter in trace.gradients && atHand(nudged)) return nudged;
  if (saved) return saved[0];
  const [parameter, gradient] = Object.entries(trace.gradients)[0];
  return { parameter, index: strongest(gradient.data) };
}

/** Return the choice of a parameter and of a number in it. */
function nudgePicker(store, pick) {
  const { network, source, trace, image, nudged } = store.state;
  const saved = source.nudgesOf(image);
  const parameters = Object.keys(trace.gradients).filter((name) => !saved || saved.some((each) => each.parameter === name));
  const indexIn = (name) => saved?.find((each) => each.parameter === name).index ?? strongest(trace.gradients[name].data);
  const select = h(
    "select",
    {
      "aria-label": "Parameter",
      onchange: () => {
        pick(select.value, indexIn(select.value));
        document.querySelector('select[aria-label="Parameter"]')?.focus();
      },
    },
    parameters.map((name) =>
      h("option", { value: name, selected: name === nudged.parameter }, `${name}  ${times(network.weights[name].shape)}`),
    ),
  );
  return [h("div", { class: "tools" }, h("label", {}, "Parameter ", select)), ...cellPicker(store, pick, saved)];
}

/** Return the grid of the picked number's plane: a filter's window, a matrix, or a strip. */
function cellPicker(store, pick, saved) {
  const { network, trace, nudged } = store.state;
  const { parameter, index } = nudged;
  const weight = network.weights[parameter];
  const gradient = trace.gradients[parameter];
  const plane = planeOf(weight.shape, index);
  const at = (r, c) => plane.start + r * plane.cols + c;
  const there = (r, c) => at(r, c) < plane.start + plane.size;
  const chosen = h("p", { class: "caption" });
  const tell = (r, c) => {
    chosen.textContent = there(r, c)
      ? `${placeText(weight.shape, at(r, c))}: W ${short(weight.data[at(r, c)])}, claimed dJ/dW ${short(gradient.data[at(r, c)])}`
      : "";
  };
  const grid = namedGrid({
    name: "weights",
    rows: plane.rows,
    cols: plane.cols,
    value: (r, c) => (there(r, c) ? gradient.data[at(r, c)] : null),
    magnitude: largest(gradient.data),
    label: `Gradient of ${parameter}. Enter picks a number.`,
    point: tell,
    describe: (r, c) => (there(r, c) ? `${placeText(weight.shape, at(r, c))}: gradient ${short(gradient.data[at(r, c)])}` : ""),
    width: 320,
    height: 360,
    most: 40,
  });
  const available = (k) => !saved || saved.some((each) => each.parameter === parameter && each.index === k);
  const choose = () => {
    const [r, c] = grid.cursor;
    if (!there(r, c) || !available(at(r, c))) return;
    pick(parameter, at(r, c));
    document.querySelector('[data-name="weights"]')?.focus({ preventScroll: true });
  };
  grid.element.addEventListener("click", choose);
  grid.element.addEventListener("keydown", (event) => event.key === "Enter" && choose());
  const [row, col] = [Math.floor((index - plane.start) / plane.cols), (index - plane.start) % plane.cols];
  grid.cursor = [row, col];
  const mark = (k, role) => cellMark([Math.floor((k - plane.start) / plane.cols), (k - plane.start) % plane.cols], role);
  const inPlane = (k) => k >= plane.start && k < plane.start + plane.size;
  const offered = (saved ?? [])
    .filter((each) => each.parameter === parameter && inPlane(each.index))
    .map((each) => mark(each.index, "patch"));
  grid.mark([...offered, mark(index, "result")]);
  tell(row, col);
  return [
    saved ? savedChoice(store, pick, saved) : planeSteppers(weight.shape, index, (k) => pick(parameter, k)),
    h("p", { class: "caption" }, `The gradient of each number${grid.unit}. Click on one, or press Enter, to nudge that weight.`),
    grid.element,
    chosen,
    legend(largest(gradient.data), "dJ/dW"),
  ];
}

/** Return the part of a parameter that is shown at once: of filters (K, C, KH, KW) one window, else all. */
function planeOf(shape, index) {
  const size = shape.reduce((product, length) => product * length, 1);
  if (shape.length === 4 && shape[2] * shape[3] > 1) {
    const area = shape[2] * shape[3];
    return { rows: shape[2], cols: shape[3], start: Math.floor(index / area) * area, size: area };
  }
  if (shape.length === 1) {
    const { rows, cols } = channel({ shape, data: { length: size } }, 0);
    return { rows, cols, start: 0, size };
  }
  return { rows: shape[0], cols: size / shape[0], start: 0, size };
}

/** Return the steppers that choose a filter and its channel, or the row and the column of a matrix. */
function planeSteppers(shape, index, change) {
  if (shape.length === 1) return "";
  const { cols, rows } = planeOf(shape, index);
  if (shape.length !== 4 || shape[2] * shape[3] === 1) {
    const [row, col] = [Math.floor(index / cols), index % cols];
    return h(
      "div",
      { class: "tools" },
      stepper({ label: "Row", count: rows, value: row, change: (k) => change(k * cols + col) }).element,
      stepper({ label: "Column", count: cols, value: col, change: (k) => change(row * cols + k) }).element,
    );
  }
  const [filters, channels] = shape;
  const area = shape[2] * shape[3];
  const window = Math.floor(index / area);
  const [filter, c] = [Math.floor(window / channels), window % channels];
  const go = (k, other) => change((k * channels + other) * area + (index % area));
  return h(
    "div",
    { class: "tools" },
    stepper({ label: "Filter", count: filters, value: filter, change: (k) => go(k, c) }).element,
    stepper({ label: "Channel", count: channels, value: c, change: (k) => go(filter, k) }).element,
  );
}

/** Return the choice among the weights that were saved with the page. */
function savedChoice(store, pick, saved) {
  const { network, nudged } = store.state;
  const choices = saved.filter((each) => each.parameter === nudged.parameter);
  const shape = network.weights[nudged.parameter].shape;
  const select = h(
    "select",
    { "aria-label": "Saved weight", onchange: () => pick(nudged.parameter, Number(select.value)) },
    choices.map(({ index }) => h("option", { value: index, selected: index === nudged.index }, placeText(shape, index))),
  );
  return h("div", { class: "tools" }, h("label", {}, "Weight ", select), h("span", { class: "caption" }, "This saved page knows these."));
}

/** Return a place in an array as text: "[3, 0, 1, 2]". */
function placeText(shape, index) {
  return `[${placeIn(shape, index).join(", ")}]`;
}

/** Return the curve of J, as wide as the room, and the three numbers side by side with the verdict. */
function nudgeResult(store, found, room) {
  const { network } = store.state;
  const apart = Math.abs(found.difference - found.gradient);
  const share = found.bound > 0 ? apart / found.bound : 0;
  const figure = (title, name, value, note) =>
    h(
      "div",
      { class: "figure-number" },
      h("dt", {}, title),
      h("dd", {}, namedNumber(name, value, nudgeDigits), h("span", { class: "caption" }, note)),
    );
  return [
    h("h3", {}, `${found.parameter} ${placeText(network.weights[found.parameter].shape, found.index)} = ${short(found.weight)}`),
    new NudgeCurve(found, room).element,
    h(
      "dl",
      { class: "three" },
      figure("Gradient", "gradient", found.gradient, "claimed by the backward pass"),
      figure("Finite difference", "difference", found.difference, `measured with h up to ${short(found.step)}`),
      figure("They differ by", "apart", apart, ""),
      figure("Derived bound", "bound", found.bound, "on the error of the measurement"),
    ),
    h(
      "p",
      { class: "share-line" },
      h("span", {}, "Share of the bound "),
      bar("share-bar accent", Math.min(1, share)),
      h("strong", {}, share < 1e-4 ? "< 0.01 %" : `${(100 * share).toPrecision(3)} %`),
    ),
    h(
      "p",
      { class: found.agrees ? "verdict large" : "verdict bad large", "data-name": "verdict" },
      found.agrees ? "✓ The gradient agrees within the bound." : "✗ The gradient does not agree within the bound.",
    ),
    explain({
      equations: ["difference"],
      note: [
        "The bound has two parts. What the finite difference leaves out is estimated from extrapolations of two orders ",
        "(Richardson) over h, h/2 and h/4; what rounding adds, from the fourth differences of nearby values of J, in which a ",
        "smooth curve vanishes and only noise is left (Hamming). No part of it is a hand-picked tolerance, and everything is ",
        "computed in float64.",
      ],
      codes: [["The derivative, with its bound", network.code.derivative]],
    }),
  ];
}

function nudgeDigits(value) {
  if (!Number.isFinite(value)) return short(value);
  const size = Math.abs(value);
  const text = size !== 0 && size < 1e-3 ? value.toExponential(6) : value.toPrecision(10);
  return text.replaceAll("-", "−");
}
