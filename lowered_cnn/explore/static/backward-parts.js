// What the views of the backward pass share: numbers that tests can read, named grids, strips, and a path of steps.

import { largest } from "./arrays.js";
import { diverging } from "./colour.js";
import { h, mainWidth, short, tableHead, tight } from "./dom.js";
import { cellMark, fitted, Grid, READABLE } from "./grid.js";

const BACKWARD_DIGITS = 5; // the digits in which the page and the package are compared
const BACKWARD_ROUNDING = 1e-4; // of the largest number around: what sums in another order may differ by in float32

/** Return a number with the digits that are compared, and a true minus sign. */
export function precise(value) {
  if (value === 0 || !Number.isFinite(value)) return short(value);
  const size = Math.abs(value);
  const text = size < 1e-3 || size >= 1e5 ? value.toExponential(BACKWARD_DIGITS - 1) : value.toPrecision(BACKWARD_DIGITS);
  return text.replaceAll("-", "−");
}

/** Return a number as an element that tells its name and its exact value. */
export function namedNumber(name, value, write = precise) {
  return h("output", { class: "value", "data-name": name, "data-value": value }, write(value));
}

/**
 * Return a line with what the page computed beside what the package computed; scale is the largest number around, and
 * more is what the page computed in another way: [title, name, value].
 */
export function besidePackage(name, page, own, scale, [title, other, value] = []) {
  const same = Math.abs(page - own) <= BACKWARD_ROUNDING * Math.max(scale, 1e-30);
  const verdict = h("span", { class: same ? "verdict" : "verdict bad" }, same ? "✓ the same, but for rounding" : "✗ they differ");
  return h(
    "p",
    { class: "compared" },
    h("span", {}, h("span", { class: "caption" }, title ? "columns added " : "this page "), namedNumber(`${name}-page`, page)),
    title ? h("span", {}, h("span", { class: "caption" }, `${title} `), namedNumber(other, value)) : null,
    h("span", {}, h("span", { class: "caption" }, "the package "), namedNumber(`${name}-package`, own)),
    [page, own].every(Number.isFinite) ? verdict : h("span", { class: "caption" }, "not both are finite"),
  );
}

/**
 * Return a grid that fits into a box, with cells between two sizes. If `magnitude`, that of its largest number, is given,
 * it has the colours of a gradient; the numbers in the cells of small gradients are in the unit that `grid.unit` tells.
 */
export function namedGrid({ width = 300, height = width, least = 0.4, most = 34, magnitude = 1, ...options }) {
  const { rows, cols } = options;
  const { write, unit } = inUnits(magnitude);
  const cell = fitted(rows, cols, Math.min(width, backwardRoom()), height, least, most);
  const grid = new Grid({ heat: diverging(magnitude), write, ...options, cell });
  grid.unit = cell >= READABLE ? unit : "";
  return grid;
}

/** Return how numbers up to a magnitude are written in few characters: all by the same power of ten, named in `unit`. */
function inUnits(magnitude) {
  if (magnitude >= 0.1 || magnitude < 1e-25) return { write: tight, unit: "" };
  const power = Math.ceil(-Math.log10(magnitude));
  const digits = [...String(power)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
  return { write: (value, length) => tight(value * 10 ** power, length), unit: ` in 10⁻${digits}` };
}

/** Return the width that the page leaves to a figure. */
export function backwardRoom() {
  return mainWidth() - 8;
}

/**
 * Factors and their products, one above the other, of a sum whose terms change with what is pointed at: each part is
 * {title, role, value(k), most}, and point(k) is called for the cell of a term.
 */
export class TermStrips {
  constructor({ name, count, parts, point, describe }) {
    this.grids = parts.map(({ title, value, most }) =>
      namedGrid({
        name: `${name}-${title}`,
        rows: 1,
        cols: count,
        value: (_, k) => value(k),
        magnitude: most,
        label: title,
        width: 620,
        least: 6,
        point: (_, k) => point(k),
        describe: (_, k) => describe(k),
      }),
    );
    const lines = parts.map(({ title, role }, k) =>
      h("div", { class: `strip ${role}` }, h("span", { class: "caption" }, title, this.grids[k].unit), this.grids[k].element),
    );
    this.element = h("div", { class: "strips" }, lines);
  }

  /** Colour the strips again, with term k framed. */
  draw(k) {
    for (const grid of this.grids) {
      grid.draw();
      grid.mark(k === undefined ? [] : [cellMark([0, k], "cursor")]);
    }
  }
}

/** Return what was chosen in a view before, completed by defaults; what is changed in it is remembered. */
export function remembered(store, key, defaults) {
  const kept = { ...defaults, ...store.state.pointed[key] };
  store.state.pointed[key] = kept;
  return kept;
}

/** Return a path of steps, each {title, build}, of which chosen.step is shown. */
export function stepPath(chosen, steps) {
  const page = h("section", { class: "step" });
  chosen.step = Math.min(chosen.step, steps.length - 1);
  const buttons = steps.map(({ title }, k) =>
    h(
      "button",
      { type: "button", "data-step": k + 1, onclick: () => show(k) },
      h("span", { class: "step-number", "aria-hidden": "true" }, String(k + 1)),
      title,
    ),
  );
  function show(k) {
    chosen.step = k;
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === k)));
    buttons[k].scrollIntoView({ block: "nearest", inline: "nearest" });
    page.replaceChildren(...steps[k].build());
  }
  const element = h(
    "div",
    {},
    h(
      "ol",
      { class: "path", "aria-label": "Steps of the backward pass" },
      buttons.map((button) => h("li", {}, button)),
    ),
    page,
  );
  return { element, show: () => show(chosen.step) };
}

/** Return a row of buttons of which one is pressed: choices are [value, title]. */
export function switchOf(label, choices, value, change) {
  const buttons = choices.map(([each, title]) =>
    h("button", { type: "button", "aria-pressed": String(each === value), "data-choice": each, onclick: () => change(each) }, title),
  );
  return h("div", { class: "switch", role: "group", "aria-label": label }, buttons);
}

/** Return the largest magnitude of a function of k = 0 ... count - 1. */
export function largestOf(count, value) {
  return largest(Float32Array.from({ length: count }, (_, k) => value(k)));
}

/** Return a table of texts. */
export function backwardTable(names, rows) {
  return h(
    "table",
    {},
    tableHead(names),
    h(
      "tbody",
      {},
      rows.map((cells) =>
        h(
          "tr",
          {},
          cells.map((cell) => h("td", {}, cell)),
        ),
      ),
    ),
  );
}
