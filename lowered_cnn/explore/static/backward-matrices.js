// The backward pass of a convolution as matrices, computed in the page, beside what the package computed.

import { entry, matrix, multiply, transpose } from "./arrays.js";
import { gradientOf, inputGradientOf, parameterOf } from "./source.js";
import { Convolution } from "./stage-conv.js";

/** The matrices of one group of a convolution for one image: dZ, dW, dcolumns and dX, as the page and as the package have them. */
export class ConvolutionGradients {
  constructor({ network, trace, stage, filter }) {
    const conv = new Convolution({ network, trace, stage, filter });
    const { lowering, filters, group, first } = conv;
    const start = group * filters;
    const rowsOf = (data, cols) => matrix(filters, cols, data.subarray(start * cols, (start + filters) * cols));
    Object.assign(this, { conv, lowering, filters, start, first });
    this.dz = rowsOf(gradientOf(trace, stage.name).data, lowering.positions);
    this.columnsT = transpose(conv.columns);
    this.dweight = multiply(this.dz, this.columnsT);
    this.packageDweight = rowsOf(parameterOf(trace.gradients, stage, "weight").data, lowering.rows);
    const dbias = parameterOf(trace.gradients, stage, "bias");
    this.packageDbias = dbias ? dbias.data.subarray(start, start + filters) : null;
    const area = lowering.height * lowering.width;
    const dx = inputGradientOf(trace, stage.name).data;
    this.packageDx = { shape: conv.x.shape, data: dx.subarray(first * area, (first + lowering.channels) * area) };
    this.spread = new SpreadMap(lowering);
    this.asksForNothing = trace.stages[stage.name].x === "images";
  }

  /** W^T dZ: a column of C KH KW numbers for each position. */
  get dcolumns() {
    this.foundColumns ??= multiply(transpose(this.conv.weight), this.dz);
    return this.foundColumns;
  }

  /** Return the sum over positions of row k of dZ, rounded as float32 after each term. */
  dbias(k) {
    let sum = 0;
    for (let p = 0; p < this.lowering.positions; p++) sum = Math.fround(sum + entry(this.dz, k, p));
    return sum;
  }

  /**
   * Return what a pixel gets back from dcolumns: a term for each position whose window lay over it, in the order of the
   * positions, {row, position, tap: [a, b], place: [i, j], value}.
   */
  terms(c, y, x) {
    const { lowering, dcolumns } = this;
    const found = lowering.readers(c, y, x).sort((one, other) => one.position - other.position);
    return found.map(({ row, position }) => {
      return { row, position, tap: lowering.tap(row).slice(1), place: lowering.place(position), value: entry(dcolumns, row, position) };
    });
  }

  /**
   * Return what the rotated filter finds in dZ around a pixel, from left to right and from top to bottom: the sum over
   * the filters for each number of dZ, leaving out the zeros that were put in.
   */
  turnedTerms(c, y, x) {
    const { lowering, spread } = this;
    const { kh, kw } = lowering;
    const found = [];
    for (let r = 0; r < kh; r++) {
      for (let k = 0; k < kw; k++) {
        const tap = [kh - 1 - r, kw - 1 - k];
        const position = spread.position(...spread.cell([y, x], tap));
        if (position !== undefined) found.push(this.overFilters(lowering.row(c, ...tap), position));
      }
    }
    return found;
  }

  /** Return the sum over filters k of dZ[k, position] W[k, row], rounded as float32 after each term. */
  overFilters(row, position) {
    let sum = 0;
    for (let k = 0; k < this.filters; k++) sum = Math.fround(sum + entry(this.dz, k, position) * entry(this.conv.weight, k, row));
    return sum;
  }
}

/** Return the sum of terms, rounded as float32 after each. */
export function sumInOrder(values) {
  return values.reduce((sum, value) => Math.fround(sum + value), 0);
}

/** dZ of one filter with zeros between its numbers (stride) and around them, so that a window of the filter's size fits at every pixel. */
class SpreadMap {
  constructor(lowering) {
    const { stride, dilation, pads } = lowering.sweep;
    this.lowering = lowering;
    this.reach = [dilation[0] * (lowering.kh - 1), dilation[1] * (lowering.kw - 1)];
    this.offset = [pads[0][0], pads[1][0]];
    this.stride = stride;
    this.rows = lowering.height + pads[0][0] + pads[0][1] + this.reach[0];
    this.cols = lowering.width + pads[1][0] + pads[1][1] + this.reach[1];
  }

  /** Return the position whose number is at a cell, or undefined where there is a zero that was put in. */
  position(u, v) {
    const { lowering } = this;
    const [i, j] = [(u - this.reach[0]) / this.stride[0], (v - this.reach[1]) / this.stride[1]];
    const there = Number.isInteger(i) && Number.isInteger(j) && i >= 0 && j >= 0 && i < lowering.oh && j < lowering.ow;
    return there ? i * lowering.ow + j : undefined;
  }

  /** Return the cell that the tap (a, b) of the filter as it was, not rotated, meets for a pixel. */
  cell([y, x], [a, b]) {
    const { dilation } = this.lowering.sweep;
    return [y + this.offset[0] + this.reach[0] - a * dilation[0], x + this.offset[1] + this.reach[1] - b * dilation[1]];
  }
}
