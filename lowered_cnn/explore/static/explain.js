// What stands beside a view: its equation, its shapes with this network's numbers, and the code that computes it.

import { h } from "./dom.js";
import { equation } from "./equations.js";

const QUOTED = /"""[\s\S]*?"""|"[^"\n]*"|#.*/;
const KEYWORDS = /and|assert|class|def|else|False|for|from|if|import|in|is|lambda|None|not|or|raise|return|True|while|with|yield/;
const MARKED = new RegExp(`(${QUOTED.source})|\\b(?:${KEYWORDS.source})\\b`, "g");

/** Return the lines of the package that compute something, with their place. */
export function code({ text, place }, title) {
  if (!text) return null;
  const shown = h("code", {});
  let end = 0;
  for (const found of text.matchAll(MARKED)) {
    shown.append(text.slice(end, found.index), h("span", { class: found[1] ? "quoted" : "word" }, found[0]));
    end = found.index + found[0].length;
  }
  shown.append(text.slice(end));
  return h("figure", { class: "code" }, h("figcaption", {}, h("strong", {}, title), " ", place), h("pre", { tabindex: "0" }, shown));
}

/** Return the panel: names of equations, lines [name, shape], and pieces of code [title, code]. */
export function explain({ equations = [], shapes = [], codes = [], note = null }) {
  const pieces = codes.map(([title, piece]) => piece && code(piece, title)).filter(Boolean);
  return h(
    "section",
    { class: "explain", "aria-label": "Equation, shapes and code" },
    h(
      "div",
      { class: "formulas" },
      h("div", {}, equations.map(equation), note && h("p", { class: "note" }, note)),
      shapes.length
        ? h(
            "dl",
            { class: "shapes" },
            shapes.map(([name, shape]) => h("div", {}, h("dt", {}, name), h("dd", {}, shape))),
          )
        : null,
    ),
    pieces.length ? h("details", {}, h("summary", {}, "The lines that compute it"), pieces) : null,
  );
}
