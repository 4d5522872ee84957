// The picture of a matrix product C = A B, to scale: A left of C, B above C, so that partners stand in one line.

import { entry, largest } from "./arrays.js";
import { diverging, onTheme } from "./colour.js";
import { grouped, h, times } from "./dom.js";
import { fitted, Grid } from "./grid.js";

const COMFORTABLE = 8; // pixels of a cell that is pleasant to point at
const NUMBERS = 36; // pixels of a cell in which its number is written
const THINNEST = 12; // pixels to which narrower matrices are stretched
const OVERVIEW = 90; // pixels of height

/**
 * A product of matrices a (M, K) and b (K, N) with the result c (M, N).
 *
 * names are those of the three; point({ m, k, n }) is called with the indices that a cell determines (the third one is
 * undefined), describe has a function (row, column) -> text for a, b and c, and heats other colours than blue and orange.
 * select({ m, k, n }) frames row m of A, column n of B and entry (m, n) of C, and the term k in both. What does not fit is
 * scrolled; an overview shows where. The whole is drawn with cells of `least` to `most` pixels. An element `corner` is
 * shown above A if there is room for it, else below everything.
 */
export class Product {
  constructor({
    a,
    b,
    c,
    names,
    point,
    describe = {},
    heats = {},
    corner = null,
    least = 0.4,
    most = 26,
    width = 900,
    height = Math.max(320, Math.min(640, innerHeight * 0.7)),
  }) {
    const [rows, inner] = a.shape;
    const cols = b.shape[1];
    Object.assign(this, { rows, inner, cols, selected: {} });
    this.whole = fitted(rows + inner, cols + inner, width - 24, height - 56, least, most);
    const pleasant = Math.min(
      COMFORTABLE,
      Math.max(3, Math.floor((height - 56) / (rows + inner))),
      ((width < 600 ? 0.4 : 0.6) * width) / inner,
    );
    this.view = h("div", { class: "factors", tabindex: "-1", onscroll: () => this.redraw() });
    const grid = (m, key, pointed) =>
      new Grid({
        rows: m.shape[0],
        cols: m.shape[1],
        value: (r, col) => entry(m, r, col),
        heat: heats[key] ?? diverging(largest(m.data)),
        label: `${names[key]}, ${times(m.shape)}`,
        name: { a: "weight", b: "columns", c: "product" }[key],
        point: pointed,
        describe: describe[key],
        view: this.view,
      });
    this.a = grid(a, "a", (m, k) => point({ m, k }));
    this.b = grid(b, "b", (k, n) => point({ k, n }));
    this.c = grid(c, "c", (m, n) => point({ m, n }));
    const labelled = (key, letters) =>
      h(
        "div",
        { class: `factor ${key}` },
        h("p", { class: "caption" }, h("strong", {}, names[key]), ` ${letters} = ${times({ a, b, c }[key].shape)}`),
        this[key].element,
      );
    const roomy = corner && width > 640 && inner * Math.max(this.whole, pleasant) > 280;
    this.view.append(
      h("div", { class: "corner" }, roomy ? corner : null),
      labelled("b", "K × N"),
      labelled("a", "M × K"),
      labelled("c", "M × N"),
    );
    this.overview = h("canvas", {
      class: "overview",
      "aria-hidden": "true",
      onpointerdown: (event) => this.jump(event),
      onpointermove: (event) => event.buttons && this.jump(event),
    });
    const furthest = Math.max(0, Math.log2(NUMBERS / this.whole));
    this.zoom = h("input", {
      type: "range",
      min: "0",
      max: furthest,
      step: "any",
      value: Math.max(0, Math.log2(pleasant / this.whole)),
      "aria-label": "Zoom",
      oninput: () => this.scale(),
    });
    const zoomTo = (value) => {
      this.zoom.value = String(value);
      this.scale();
    };
    this.element = h(
      "figure",
      { class: "product" },
      h(
        "div",
        { class: "tools" },
        h(
          "span",
          { class: "zoom" },
          h("button", { type: "button", class: "quiet", onclick: () => zoomTo(0) }, "Whole"),
          this.zoom,
          h("button", { type: "button", class: "quiet", onclick: () => zoomTo(furthest) }, "Numbers"),
        ),
        h("span", { class: "caption" }, `M × K × N = ${times(rows, inner, cols)}, 2 M K N = ${grouped(2 * rows * inner * cols)} FLOP`),
      ),
      this.overview,
      this.view,
      roomy ? null : corner,
    );
    this.scale();
    onTheme(this.element, () => this.drawOverview());
    new ResizeObserver(() => this.settle()).observe(this.view);
  }

  /** Draw the cells as large as the zoom says. */
  scale() {
    const cell = this.whole * 2 ** Number(this.zoom.value);
    const stretch = Math.max(1, THINNEST / (cell * this.cols));
    Object.assign(this, { cell, wide: cell * stretch });
    this.a.resize(cell);
    for (const grid of [this.b, this.c]) grid.resize(cell, stretch);
    this.settle();
  }

  /** Hold A and C in place where there is room for B beside them, and bring the selected entry into sight. */
  settle() {
    const { view, cell } = this;
    if (!view.isConnected) return;
    view.classList.toggle("held-left", this.inner * cell < 0.6 * view.clientWidth);
    view.classList.toggle("held-below", this.rows * cell < 0.5 * view.clientHeight);
    view.style.setProperty("--held", view.classList.contains("held-left") ? `${this.a.element.parentElement.offsetWidth}px` : "0px");
    const fits = view.scrollWidth <= view.clientWidth + 8 && view.scrollHeight <= view.clientHeight + 8;
    this.overview.hidden = fits || this.inner + this.cols < 0.7 * (this.rows + this.inner); // a thin strip shows nothing
    this.reveal(this.selected);
    this.redraw();
  }

  redraw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      for (const grid of [this.a, this.b, this.c]) grid.drawOver();
      this.drawOverview();
    });
  }

  /**
   * Scroll to column n and to row k of B, or else to row m of C: if they are out of sight, or in any case. Under the
   * pointer only what lies beside a held matrix is scrolled, lest the cell that is pointed at moves away.
   */
  reveal({ m, k, n }, always = false) {
    const { view, cell, wide } = this;
    if (!view.isConnected) return;
    const frame = view.getBoundingClientRect();
    const still = !always && view.matches(":hover");
    const [heldLeft, heldBelow] = ["held-left", "held-below"].map((name) => view.classList.contains(name));
    const into = (start, length, low, high, way) => {
      if (still && !(way === "scrollLeft" ? heldLeft : heldBelow)) return;
      if (always || start + length <= low || start >= high) view[way] += start + length / 2 - (low + high) / 2;
    };
    const [a, b, c] = [this.a, this.b, this.c].map((grid) => grid.element.getBoundingClientRect());
    const left = heldLeft ? a.right - frame.left : 0;
    const below = heldBelow ? frame.bottom - c.top : 0;
    if (n !== undefined) into(b.left - frame.left + n * wide, wide, left, view.clientWidth, "scrollLeft");
    if (k !== undefined) into(b.top - frame.top + k * cell, cell, 0, view.clientHeight - below, "scrollTop");
    else if (m !== undefined) into(c.top - frame.top + m * cell, cell, 0, view.clientHeight, "scrollTop");
  }

  /** Frame a row, a column and a term; `more` has further marks for a, b and c. */
  select({ m, k, n }, more = {}) {
    const { rows, inner, cols } = this;
    const one = (index, count) => (index === undefined ? [0, count] : [index, index + 1]);
    const term = (r, c) => (r === undefined || c === undefined ? [] : [{ rows: one(r), cols: one(c), role: "cursor" }]);
    this.selected = { m, k, n };
    this.a.mark([...(more.a ?? []), ...(m === undefined ? [] : [{ rows: one(m), cols: [0, inner], role: "weight" }]), ...term(m, k)]);
    this.b.mark([...(more.b ?? []), ...(n === undefined ? [] : [{ rows: [0, inner], cols: one(n), role: "patch" }]), ...term(k, n)]);
    const result = m === undefined && n === undefined ? [] : [{ rows: one(m, rows), cols: one(n, cols), role: "result" }];
    this.c.mark([...(more.c ?? []), ...result]);
    if (m !== undefined && k !== undefined) this.a.cursor = [m, k];
    if (k !== undefined && n !== undefined) this.b.cursor = [k, n];
    if (m !== undefined && n !== undefined) this.c.cursor = [m, n];
    this.reveal(this.selected);
    this.redraw();
  }

  /** Draw the whole product small, and on it what of it can be seen below. */
  drawOverview() {
    const { overview, rows, inner, cols, cell, wide } = this;
    if (overview.hidden || !this.view.isConnected) return;
    const stretch = wide / cell;
    const unit = Math.min((this.view.clientWidth - 6) / (inner + cols * stretch), OVERVIEW / (rows + inner));
    const dense = devicePixelRatio || 1;
    const [width, height] = [(inner + cols * stretch) * unit, (rows + inner) * unit];
    Object.assign(overview, { width: Math.ceil(width * dense), height: Math.ceil(height * dense), unit });
    Object.assign(overview.style, { width: `${width}px`, height: `${height}px` });
    const pen = overview.getContext("2d");
    pen.scale(dense, dense);
    const style = getComputedStyle(document.documentElement);
    for (const [grid, left, top, colour] of [
      [this.a, 0, inner, "weight"],
      [this.b, inner, 0, "patch"],
      [this.c, inner, inner, "result"],
    ]) {
      const across = unit * grid.stretch;
      pen.drawImage(grid.base, left * unit, top * unit, grid.cols * across, grid.rows * unit);
      const [x, y, right, bottom] = grid.visible();
      const share = unit / cell;
      pen.strokeStyle = style.getPropertyValue(`--${colour}`);
      pen.lineWidth = 1.5;
      pen.strokeRect(left * unit + x * share, top * unit + y * share, (right - x) * share, (bottom - y) * share);
    }
    const { n } = this.selected;
    pen.fillStyle = style.getPropertyValue("--cursor");
    if (n !== undefined) pen.fillRect((inner + n * stretch) * unit, 0, Math.max(1.5, unit * stretch), height);
  }

  jump(event) {
    const box = this.overview.getBoundingClientRect();
    const { unit } = this.overview;
    const stretch = this.wide / this.cell;
    const [x, y] = [(event.clientX - box.left) / unit, (event.clientY - box.top) / unit];
    this.reveal({ n: Math.max(0, (x - this.inner) / stretch), k: Math.min(y, this.inner) }, true);
  }
}
