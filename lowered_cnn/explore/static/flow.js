// Numbers that move from one grid to another, so that the eye can follow where an index map takes them.

import { css, readableOn } from "./colour.js";
import { h } from "./dom.js";

const FLOW_TIME = 600; // milliseconds that a number is on its way
const FLOW_DELAY = 80; // milliseconds after which the next one follows

/** Return a button that lets numbers flow; moves() returns the arguments of flow(). */
export function flowButton(title, moves) {
  return h("button", { type: "button", class: "flows", onclick: () => flow(...moves()) }, `▶ ${title}`);
}

/** Let cells of one grid move to cells of another one; pairs are [[row, column], [row, column]], in the order in which they start. */
function flow(from, to, pairs) {
  document.querySelector(".flow")?.remove();
  const layer = h("div", { class: "flow", "aria-hidden": "true" });
  const moves = pairs.map(([start, end], k) => flowing(layer, flowBox(from, start), flowBox(to, end), from, start, k));
  document.body.append(layer);
  Promise.allSettled(moves.map((move) => move.finished)).then(() => layer.remove());
}

/** Return the place of a cell on the page. */
function flowBox({ element, cell, stretch }, [row, column]) {
  const { left, top } = element.getBoundingClientRect();
  const width = cell * stretch;
  return { left: `${left + scrollX + column * width}px`, top: `${top + scrollY + row * cell}px`, width: `${width}px`, height: `${cell}px` };
}

function flowing(layer, start, end, { value, heat, write }, cell, k) {
  const number = value(...cell) ?? 0;
  const colour = heat(number);
  const moving = h("span", {}, write(number, 4));
  Object.assign(moving.style, { background: css(colour), color: readableOn(colour) });
  layer.append(moving);
  return moving.animate([start, end], { duration: FLOW_TIME, delay: FLOW_DELAY * k, easing: "ease-in-out", fill: "both" });
}
