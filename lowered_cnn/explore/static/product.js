// The picture of a matrix product C = A B, to scale: A left of C, B above C, so that partners stand in one line.

import { entry } from "./arrays.js";
import { diverging } from "./colour.js";
import { h, times } from "./dom.js";
import { fitted, Grid } from "./grid.js";
import { largest } from "./arrays.js";

/**
 * A product of matrices a (M, K) and b (K, N) with the result c (M, N).
 *
 * names are those of the three; point({ m, k, n }) is called with the indices that a cell determines (the third one is
 * undefined), and describe has a function (row, column) -> text for a, b and c. select({ m, k, n }) frames row m of A,
 * column n of B and entry (m, n) of C, and the term k in both.
 */
export class Product {
  constructor({ a, b, c, names, point, describe = {}, width = 900, height = 460, least = 0.4, most = 26 }) {
    const [rows, inner] = a.shape;
    const cols = b.shape[1];
    Object.assign(this, { rows, inner, cols });
    const cell = fitted(rows + inner, cols + inner, width - 24, height, least, most);
    const grid = (m, key, label, pointed) =>
      new Grid({
        rows: m.shape[0],
        cols: m.shape[1],
        value: (r, col) => entry(m, r, col),
        heat: diverging(largest(m.data)),
        label: `${label}, ${times(m.shape)}`,
        point: pointed,
        describe: describe[key],
        cell,
      });
    this.a = grid(a, "a", names.a, (m, k) => point({ m, k }));
    this.b = grid(b, "b", names.b, (k, n) => point({ k, n }));
    this.c = grid(c, "c", names.c, (m, n) => point({ m, n }));
    const labelled = (role, name, shape, each) =>
      h("div", { class: `factor ${role}` }, h("p", { class: "caption" }, h("strong", {}, name), " ", times(shape)), each.element);
    this.zoom = h("input", { type: "range", min: "0", max: "6", step: "0.25", value: "0", "aria-label": "Zoom", oninput: () => this.scale(cell) });
    this.element = h(
      "figure",
      { class: "product" },
      h("div", { class: "tools" }, h("label", {}, "Zoom ", this.zoom), h("span", { class: "caption" }, `M × K × N = ${times(rows, inner, cols)}`)),
      h(
        "div",
        { class: "factors", tabindex: "-1" },
        h("div", { class: "corner" }),
        labelled("b", names.b, b.shape, this.b),
        labelled("a", names.a, a.shape, this.a),
        labelled("c", names.c, c.shape, this.c),
      ),
    );
  }

  scale(cell) {
    for (const grid of [this.a, this.b, this.c]) grid.resize(cell * 2 ** Number(this.zoom.value));
  }

  select({ m, k, n }) {
    const { rows, inner, cols } = this;
    const span = (index, count) => (index === undefined ? [0, count] : [index, index + 1]);
    const framed = (rowIndex, rowCount, colIndex, colCount, role) =>
      rowIndex === undefined && colIndex === undefined
        ? []
        : [{ rows: span(rowIndex, rowCount), cols: span(colIndex, colCount), role }];
    const term = (r, c, role) => (r === undefined || c === undefined ? [] : [{ rows: [r, r + 1], cols: [c, c + 1], role }]);
    this.a.mark([...(m === undefined ? [] : framed(m, rows, undefined, inner, "weight")), ...term(m, k, "cursor")]);
    this.b.mark([...(n === undefined ? [] : framed(undefined, inner, n, cols, "patch")), ...term(k, n, "cursor")]);
    this.c.mark(framed(m, rows, n, cols, "result"));
  }
}
