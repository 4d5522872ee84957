// A matrix of numbers as coloured cells, in which a cell is pointed at with the mouse, a finger or the arrow keys.

import { css, onTheme, readableOn } from "./colour.js";
import { announce, h, short } from "./dom.js";
import { makeEditable } from "./edit.js";

const READABLE = 30; // pixels a cell needs for its number to be written in it

/**
 * A grid of rows x cols cells.
 *
 * value(r, c) is the number of a cell, or null for one that is not there (padding); heat(value) is its colour [r, g, b].
 * point(r, c) is called when a cell is pointed at, and describe(r, c) says what it is. edit(r, c, value), if given, makes
 * the cells editable: it is called with what was typed or dragged. mark() frames ranges of cells, in the colour of their role: patch, weight, result or cursor.
 */
export class Grid {
  constructor({ rows, cols, value, heat, label, point, describe, edit, cell = 8, numbers = true }) {
    Object.assign(this, { rows, cols, value, heat, label, point, describe, edit, cell, numbers });
    this.cursor = [0, 0];
    this.marks = [];
    this.base = h("canvas", { "aria-hidden": "true" });
    this.over = h("canvas", { "aria-hidden": "true" });
    this.element = h(
      "div",
      {
        class: "grid",
        tabindex: point || edit ? "0" : null,
        role: point || edit ? "application" : "img",
        "aria-label": label,
        onpointermove: (event) => this.pointed(event),
        onpointerdown: (event) => this.pointed(event),
        onkeydown: (event) => this.pressed(event),
      },
      this.base,
      this.over,
    );
    if (edit) makeEditable(this);
    this.draw();
    onTheme(this.element, () => this.draw());
  }

  /** Set the size of a cell in pixels; fractions are fine for matrices that are larger than the screen. */
  resize(cell) {
    this.cell = cell;
    this.draw();
  }

  /** Frame ranges of cells: {rows: [from, to], cols: [from, to], role}, where `to` is not included. */
  mark(marks) {
    this.marks = marks;
    this.drawOver();
  }

  /** Colour all cells again. */
  draw() {
    const { rows, cols, base } = this;
    base.width = cols;
    base.height = rows;
    const pixels = new ImageData(cols, rows);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) {
        const value = this.value(r, c);
        if (value !== null) pixels.data.set([...this.heat(value), 255], 4 * (r * cols + c));
      }
    }
    base.getContext("2d").putImageData(pixels, 0, 0);
    const size = { width: `${cols * this.cell}px`, height: `${rows * this.cell}px` };
    for (const element of [this.element, base, this.over]) Object.assign(element.style, size);
    this.drawOver();
  }

  drawOver() {
    const { rows, cols, cell, over } = this;
    const scale = Math.min(devicePixelRatio || 1, 4096 / (cols * cell), 4096 / (rows * cell));
    over.width = Math.ceil(cols * cell * scale);
    over.height = Math.ceil(rows * cell * scale);
    const pen = over.getContext("2d");
    pen.scale(scale, scale);
    if (cell >= 6 && rows * cols <= 4096) this.drawLines(pen);
    if (this.numbers && cell >= READABLE) this.drawNumbers(pen);
    const style = getComputedStyle(document.documentElement);
    for (const { rows: [top, bottom], cols: [left, right], role } of this.marks) {
      const box = [left * cell, top * cell, (right - left) * cell, (bottom - top) * cell];
      pen.lineWidth = 4;
      pen.strokeStyle = style.getPropertyValue("--paper");
      pen.strokeRect(...box);
      pen.lineWidth = 2;
      pen.strokeStyle = style.getPropertyValue(`--${role}`);
      pen.strokeRect(...box);
    }
  }

  drawLines(pen) {
    pen.strokeStyle = "rgb(128 128 128 / 0.25)";
    pen.lineWidth = 0.5;
    pen.beginPath();
    for (let c = 0; c <= this.cols; c++) {
      pen.moveTo(c * this.cell, 0);
      pen.lineTo(c * this.cell, this.rows * this.cell);
    }
    for (let r = 0; r <= this.rows; r++) {
      pen.moveTo(0, r * this.cell);
      pen.lineTo(this.cols * this.cell, r * this.cell);
    }
    pen.stroke();
  }

  drawNumbers(pen) {
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (let r = 0; r < this.rows; r++) {
      for (let c = 0; c < this.cols; c++) {
        const value = this.value(r, c);
        if (value === null) continue;
        const text = short(value);
        pen.font = `${Math.min(13, (1.4 * this.cell) / Math.max(text.length, 3))}px ui-monospace, monospace`;
        pen.fillStyle = readableOn(this.heat(value));
        pen.fillText(text, (c + 0.5) * this.cell, (r + 0.5) * this.cell);
      }
    }
  }

  pointed(event) {
    if (!this.point && !this.edit) return;
    const box = this.element.getBoundingClientRect();
    const c = Math.floor(((event.clientX - box.left) / box.width) * this.cols);
    const r = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
    if (r >= 0 && c >= 0 && r < this.rows && c < this.cols) this.go(r, c);
  }

  pressed(event) {
    const [r, c] = this.cursor;
    const page = Math.max(1, Math.floor(this.rows / 4));
    const targets = {
      ArrowUp: [r - 1, c],
      ArrowDown: [r + 1, c],
      ArrowLeft: [r, c - 1],
      ArrowRight: [r, c + 1],
      Home: [r, 0],
      End: [r, this.cols - 1],
      PageUp: [r - page, c],
      PageDown: [r + page, c],
    };
    const target = targets[event.key];
    if (!target || (!this.point && !this.edit)) return;
    event.preventDefault();
    const clamp = (k, count) => Math.max(0, Math.min(count - 1, k));
    this.go(clamp(target[0], this.rows), clamp(target[1], this.cols));
    announce(this.described(...this.cursor));
  }

  go(r, c) {
    if (this.cursor[0] === r && this.cursor[1] === c && this.went) return;
    this.went = true;
    this.cursor = [r, c];
    this.element.title = this.described(r, c);
    this.point?.(r, c);
  }

  described(r, c) {
    const value = this.value(r, c);
    return this.describe ? this.describe(r, c) : `row ${r}, column ${c}: ${value === null ? "padding" : short(value)}`;
  }
}

/** Return the cell size for a grid to fit into a box, between limits. */
export function fitted(rows, cols, width, height, least = 0.5, most = 34) {
  const cell = Math.min(width / cols, height / rows);
  return Math.max(least, Math.min(most, cell >= 2 ? Math.floor(cell) : cell));
}
