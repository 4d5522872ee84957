// The index maps of a window: where im2col reads each entry of the columns, and where col2im adds it back.

import { matrix } from "./arrays.js";

/** A window laid over an input (C, H, W): columns have a row for each tap (c, a, b) and a column for each position (i, j). */
export class Lowering {
  constructor({ channels, sweep }) {
    this.channels = channels;
    this.sweep = sweep;
    [this.height, this.width] = sweep.size;
    [this.kh, this.kw] = sweep.kernel;
    [this.oh, this.ow] = sweep.output;
    this.rows = channels * this.kh * this.kw;
    this.positions = this.oh * this.ow;
  }

  /** Return the tap [c, a, b] of a row. */
  tap(row) {
    const area = this.kh * this.kw;
    return [Math.floor(row / area), Math.floor((row % area) / this.kw), row % this.kw];
  }

  /** Return the row of a tap. */
  row(c, a, b) {
    return (c * this.kh + a) * this.kw + b;
  }

  /** Return the row of the tap in the middle of the window, in the first channel. */
  get middleRow() {
    return this.row(0, Math.floor(this.kh / 2), Math.floor(this.kw / 2));
  }

  /** Return the position [i, j] of a column. */
  place(position) {
    return [Math.floor(position / this.ow), position % this.ow];
  }

  /** Return the pixel [c, y, x] that an entry of the columns is read from; it may lie in the padding. */
  pixel(row, position) {
    const [c, a, b] = this.tap(row);
    const [i, j] = this.place(position);
    const { stride, dilation, pads } = this.sweep;
    return [c, i * stride[0] + a * dilation[0] - pads[0][0], j * stride[1] + b * dilation[1] - pads[1][0]];
  }

  /** Return whether a pixel is inside the input, not in the padding. */
  inside(y, x) {
    return y >= 0 && x >= 0 && y < this.height && x < this.width;
  }

  /** Return the entries {row, position} of the columns that are read from a pixel, one for each tap that meets it. */
  readers(c, y, x) {
    const found = [];
    const { stride, dilation, pads } = this.sweep;
    for (let a = 0; a < this.kh; a++) {
      const i = (y + pads[0][0] - a * dilation[0]) / stride[0];
      if (!Number.isInteger(i) || i < 0 || i >= this.oh) continue;
      for (let b = 0; b < this.kw; b++) {
        const j = (x + pads[1][0] - b * dilation[1]) / stride[1];
        if (Number.isInteger(j) && j >= 0 && j < this.ow) found.push({ row: this.row(c, a, b), position: i * this.ow + j });
      }
    }
    return found;
  }

  /** Return the columns (C KH KW, OH OW) of an input (C, H, W). */
  im2col(x) {
    const out = new Float32Array(this.rows * this.positions);
    this.each((target, source) => {
      out[target] = source < 0 ? 0 : x.data[source];
    });
    return matrix(this.rows, this.positions, out);
  }

  /** Return the input (C, H, W) to which each entry of the columns is added where im2col reads it from. */
  col2im(columns) {
    const out = new Float32Array(this.channels * this.height * this.width);
    this.each((source, target) => {
      if (target >= 0) out[target] += columns.data[source];
    });
    return { shape: [this.channels, this.height, this.width], data: out };
  }

  /** Call visit(index in the columns, index in the input or -1 for padding) for every entry of the columns. */
  each(visit) {
    for (let row = 0; row < this.rows; row++) {
      for (let position = 0; position < this.positions; position++) {
        const [c, y, x] = this.pixel(row, position);
        visit(row * this.positions + position, this.inside(y, x) ? (c * this.height + y) * this.width + x : -1);
      }
    }
  }
}
