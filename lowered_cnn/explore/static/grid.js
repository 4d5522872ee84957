// A matrix of numbers as coloured cells, in which a cell is pointed at with the mouse, a finger or the arrow keys.

import { onTheme, readableOn } from "./colour.js";
import { announce, h, short, tight } from "./dom.js";
import { makeEditable } from "./edit.js";

export const READABLE = 28; // pixels a cell needs for its number to be written in it
const BLEED = 3; // pixels by which frames stick out of the grid

/**
 * A grid of rows x cols cells.
 *
 * value(r, c) is the number of a cell, or null for one that is not there (padding); heat(value) is its colour [r, g, b].
 * point(r, c) is called when a cell is pointed at, and describe(r, c) says what it is. edit(r, c, value), if given, makes
 * the cells editable: it is called with what was typed or dragged. mark() frames ranges of cells, in the colour of their
 * role: patch, weight, result or cursor. Cells are `stretch` times as wide as high, and write(value, characters) is what
 * stands in large ones. In a scrolling box `view`, only what can be seen of frames and numbers is drawn. Tests find a grid
 * by its `name`.
 */
export class Grid {
  constructor({
    rows,
    cols,
    value,
    heat,
    label,
    name = "cells",
    point,
    describe,
    edit,
    cell = 8,
    stretch = 1,
    numbers = true,
    write = tight,
    view = null,
  }) {
    Object.assign(this, { rows, cols, value, heat, label, point, describe, edit, cell, stretch, numbers, write, view });
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
        "data-name": name,
        "data-rows": rows,
        "data-cols": cols,
        onpointermove: (event) => this.pointed(event),
        onpointerdown: (event) => this.pointed(event),
        onpointerleave: () => (this.went = false),
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
  resize(cell, stretch = this.stretch) {
    Object.assign(this, { cell, stretch });
    this.drawSize();
    this.drawOver();
  }

  /** Show other numbers under another label. */
  show(value, label) {
    Object.assign(this, { value, label });
    this.element.setAttribute("aria-label", label);
    this.draw();
  }

  /** Frame ranges of cells: {rows: [from, to], cols: [from, to], role}, without `to`; those that are `light` are tinted. */
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
    const { data } = pixels;
    for (let r = 0, at = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++, at += 4) {
        const value = this.value(r, c);
        if (value === null) continue;
        [data[at], data[at + 1], data[at + 2]] = this.heat(value);
        data[at + 3] = 255;
      }
    }
    base.getContext("2d").putImageData(pixels, 0, 0);
    this.drawSize();
    this.drawOver();
  }

  drawSize() {
    const size = { width: `${this.cols * this.cell * this.stretch}px`, height: `${this.rows * this.cell}px` };
    for (const element of [this.element, this.base]) Object.assign(element.style, size);
  }

  /** Return the part of the grid that can be seen, [left, top, right, bottom] in its own pixels. */
  visible() {
    const [width, height] = [this.cols * this.cell * this.stretch, this.rows * this.cell];
    if (!this.view) return [0, 0, width, height];
    const [box, frame] = [this.element, this.view].map((element) => element.getBoundingClientRect());
    const within = (value, most) => Math.max(0, Math.min(most, value));
    return [
      within(frame.left - box.left, width),
      within(frame.top - box.top, height),
      within(frame.right - box.left, width),
      within(frame.bottom - box.top, height),
    ];
  }

  drawOver() {
    const { cell, over, stretch } = this;
    const wide = cell * stretch;
    const [left, top, right, bottom] = this.visible();
    const [width, height] = [right - left + 2 * BLEED, bottom - top + 2 * BLEED];
    const scale = Math.min(devicePixelRatio || 1, 4096 / width, 4096 / height);
    over.width = Math.ceil(width * scale);
    over.height = Math.ceil(height * scale);
    Object.assign(over.style, { left: `${left - BLEED}px`, top: `${top - BLEED}px`, width: `${width}px`, height: `${height}px` });
    const pen = over.getContext("2d");
    pen.scale(scale, scale);
    pen.translate(BLEED - left, BLEED - top);
    const seen = {
      rows: [Math.floor(top / cell), Math.min(this.rows, Math.ceil(bottom / cell))],
      cols: [Math.floor(left / wide), Math.min(this.cols, Math.ceil(right / wide))],
    };
    if (cell >= 6 && wide >= 6) this.drawLines(pen, seen, wide);
    if (this.numbers && cell >= READABLE) this.drawNumbers(pen, seen, wide);
    this.drawMarks(pen, wide);
  }

  drawMarks(pen, wide) {
    const { cell } = this;
    const style = getComputedStyle(document.documentElement);
    const frame = (box, width, colour) => {
      pen.lineWidth = width;
      pen.strokeStyle = colour;
      pen.strokeRect(...box);
    };
    for (const {
      rows: [top, bottom],
      cols: [left, right],
      role,
      light,
    } of this.marks) {
      const box = [left * wide, top * cell, (right - left) * wide, (bottom - top) * cell];
      const colour = style.getPropertyValue(`--${role}`);
      if (light) {
        pen.globalAlpha = 0.3;
        pen.fillStyle = colour;
        pen.fillRect(...box);
        pen.globalAlpha = 1;
        if (cell > 4) frame(box, 1, colour);
      } else {
        frame(box, 4, style.getPropertyValue("--paper"));
        frame(box, 2, colour);
      }
    }
  }

  drawLines(pen, { rows: [top, bottom], cols: [left, right] }, wide) {
    pen.strokeStyle = "rgb(128 128 128 / 0.25)";
    pen.lineWidth = 0.5;
    pen.beginPath();
    for (let c = left; c <= right; c++) {
      pen.moveTo(c * wide, top * this.cell);
      pen.lineTo(c * wide, bottom * this.cell);
    }
    for (let r = top; r <= bottom; r++) {
      pen.moveTo(left * wide, r * this.cell);
      pen.lineTo(right * wide, r * this.cell);
    }
    pen.stroke();
  }

  drawNumbers(pen, { rows: [top, bottom], cols: [left, right] }, wide) {
    const size = Math.max(10, Math.min(13, this.cell * 0.32));
    pen.font = `${size}px ui-monospace, monospace`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const most = Math.floor((wide - 2) / (0.61 * size));
    for (let r = top; r < bottom; r++) {
      for (let c = left; c < right; c++) {
        const value = this.value(r, c);
        if (value === null) continue;
        pen.fillStyle = readableOn(this.heat(value));
        pen.fillText(this.write(value, most), (c + 0.5) * wide, (r + 0.5) * this.cell);
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

/** Return the frame of one cell, for Grid.mark(). */
export function cellMark([r, c], role) {
  return { rows: [r, r + 1], cols: [c, c + 1], role };
}
