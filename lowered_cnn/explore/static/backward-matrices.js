// The backward pass of a convolution as matrices, computed in the page, beside what the package computed.

import { entry, matrix, multiply, transpose } from "./arrays.js";
import { Convolution } from "./stage-conv.js";
import { gradientOf, inputGradientOf } from "./source.js";

/** Return the gradient of a stage's parameter whose name ends with this word, or null. */
export function parameterGradient(trace, stage, word) {
  return trace.gradients[parameterNamed(stage, word)] ?? null;
}

/** Return the full name of a stage's parameter whose name ends with this word. */
export function parameterNamed(stage, word) {
  return stage.parameters.find((name) => name.endsWith(`.${word}`));
}

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
    this.packageDweight = rowsOf(parameterGradient(trace, stage, "weight").data, lowering.rows);
    const dbias = parameterGradient(trace, stage, "bias");
    this.packageDbias = dbias ? dbias.data.subarray(start, start + filters) : null;
    const area = lowering.height * lowering.width;
    const dx = inputGradientOf(trace, stage.name).data;
    this.packageDx = { shape: conv.x.shape, data: dx.subarray(first * area, (first + lowering.channels) * area) };
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
   * Return what a pixel gets, one term for each position whose window lay over it, in the order of the positions:
   * {row, position, tap: [a, b], place: [i, j], column: the entry of dcolumns, turned: the sum over filters of dZ W}.
   */
  terms(c, y, x) {
    const { lowering, dcolumns } = this;
    const found = lowering.readers(c, y, x).sort((one, other) => one.position - other.position);
    return found.map(({ row, position }) => ({
      row,
      position,
      tap: lowering.tap(row).slice(1),
      place: lowering.place(position),
      column: entry(dcolumns, row, position),
      turned: this.overFilters(row, position),
    }));
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
