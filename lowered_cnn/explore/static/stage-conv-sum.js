// The sum that gives one output of a convolution: the patch times the filter, tap by tap, channel by channel.

import { entry, largest } from "./arrays.js";
import { diverging } from "./colour.js";
import { h, mainWidth, short } from "./dom.js";
import { cellMark, Grid } from "./grid.js";
import { heatOf } from "./maps.js";
import { Sum, Terms } from "./sum.js";

const MOST_CHANNELS = 6; // with a line of their own

/** The patch, the filter and their products for the channel that is pointed at, and the sum over all channels. */
export class ConvSum {
  constructor(conv, pointed, point) {
    Object.assign(this, { conv, pointed, filter: 0 });
    const { lowering } = conv;
    const room = mainWidth();
    this.between = room >= 1000; // image and output; else below both of them, and on a narrow screen in two lines
    this.place = !this.between && room >= 560 ? "below" : "";
    const across = this.between ? (0.42 * room) / 3 : room >= 560 ? (room - 80) / 3 : (room - 36) / 2;
    this.cell = Math.max(6, Math.min(36, Math.floor(across / lowering.kw)));
    this.width = Math.max(320, 3 * lowering.kw * this.cell + 64);
    const at = (a, b) => lowering.row(pointed.channel, a, b);
    const small = (name, role, value, heat) => {
      const { kh, kw } = lowering;
      const grid = new Grid({ rows: kh, cols: kw, value, heat, label: name, name, point: (a, b) => point(at(a, b)), cell: this.cell });
      return { grid, element: h("div", { class: `small ${role}` }, h("span", { class: "caption" }, name), grid.element) };
    };
    const parts = [
      small("patch", "patch", (a, b) => this.x(at(a, b)), heatOf(conv.x)),
      small("filter", "weight", (a, b) => this.w(at(a, b)), diverging(largest(conv.weight.data))),
      small("terms", "", (a, b) => this.term(at(a, b)), diverging(largest(conv.x.data) * largest(conv.weight.data))),
    ];
    this.grids = parts.map((part) => part.grid);
    this.sum = new Sum();
    this.terms = new Terms({
      count: lowering.rows,
      heads: ["c, a, b", "X", "W", "X · W"],
      cells: (r) => [this.tap(r), short(this.x(r)), short(this.w(r)), short(this.term(r))],
      point,
    });
    const followed = (sign, element) => h("div", { class: "followed" }, h("span", { class: "operator" }, sign), element);
    this.element = h(
      "div",
      { class: "one" },
      h("div", { class: "factors-of-sum" }, parts[0].element, followed("×", parts[1].element), followed("=", parts[2].element)),
      this.sum.element,
      this.terms.element,
    );
  }

  tap(row) {
    const [c, a, b] = this.conv.lowering.tap(row);
    return `${this.conv.first + c}, ${a}, ${b}`;
  }

  x(row) {
    return entry(this.conv.columns, row, this.pointed.position);
  }

  w(row) {
    return entry(this.conv.weight, this.filter, row);
  }

  term(row) {
    return this.x(row) * this.w(row);
  }

  /** Show the sum of a filter of the group at what is pointed at. */
  update(filter) {
    const { conv, pointed } = this;
    this.filter = filter;
    const marks = pointed.row === undefined ? [] : [conv.lowering.tap(pointed.row)];
    for (const grid of this.grids) {
      grid.marks = marks.map(([, a, b]) => cellMark([a, b], "cursor"));
      grid.draw();
    }
    this.sum.update({ ...this.lines(), value: entry(conv.z, filter, pointed.position) });
    this.terms.update(pointed.row);
  }

  lines() {
    const { conv, filter, pointed } = this;
    const area = conv.lowering.kh * conv.lowering.kw;
    const sums = Array.from({ length: conv.lowering.channels }, (_, c) => {
      let total = 0;
      for (let r = c * area; r < (c + 1) * area; r++) total += this.term(r);
      return total;
    });
    const bias = conv.bias ? conv.bias[filter] : 0;
    const all = sums.reduce((a, b) => a + b, 0);
    const line = (c) => [sums.length > 1 ? `channel ${conv.first + c}` : `${area} terms`, sums[c], c === pointed.channel ? "marked" : null];
    const shown =
      sums.length <= MOST_CHANNELS
        ? sums.map((_, c) => line(c))
        : [line(pointed.channel), [`${sums.length - 1} other channels`, all - sums[pointed.channel], null]];
    return { lines: [...shown, ...(conv.bias ? [["bias", bias, null]] : [])], total: all + bias };
  }
}
