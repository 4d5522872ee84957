// Pooling: a window on the input, its numbers, and the one that it becomes: their maximum, or their mean.

import { matrix, strongest } from "./arrays.js";
import { fixed, h, mainWidth, short, stepper, times } from "./dom.js";
import { equationsOf } from "./equations.js";
import { explain } from "./explain.js";
import { cellMark, fitted, Grid } from "./grid.js";
import { Lowering } from "./lowering.js";
import { channel, heatOf, legendOf, mapFigure } from "./maps.js";
import { Product } from "./product.js";
import { inputOf, outputOf } from "./source.js";
import { mapSide, outputMarks, paddedGrid, paddedPlace, paddedValue, patchMarks, pixelMark, windowShape } from "./stage-conv.js";
import { Sum } from "./sum.js";

/** The view of a pooling; `pointed` has a channel, a position, and a row (a tap of the window) if one number is meant. */
class PoolView {
  constructor(store, stage) {
    const { trace } = store.state;
    Object.assign(this, { store, stage, x: inputOf(trace, stage.name), y: outputOf(trace, stage.name) });
    this.lowering = new Lowering({ channels: 1, sweep: stage.sweep });
    this.pointed = {
      channel: 0,
      position: strongest(this.y.data.subarray(0, this.lowering.positions)),
      ...store.state.pointed[stage.name],
    };
    this.isMax = stage.view === "max_pool";
    this.captions = { input: h("span"), output: h("span") };
    this.channels = stepper({
      label: "Channel",
      count: stage.input_shape[0],
      value: this.pointed.channel,
      change: (channel) => this.point({ channel }),
    });
    this.grids();
    this.sum = new Sum();
    this.steps = h("p", { class: "total" });
    this.figure = h("div");
    this.element = h("article", { class: "pool" }, this.parts());
    this.showChannel();
    this.mark();
  }

  grids() {
    const { lowering, pointed, stage, x, y } = this;
    const side = mapSide(260);
    this.input = paddedGrid(lowering, x, pointed.channel, {
      label: `Input of ${stage.name}`,
      point: (r, k) => this.pointAtPixel(r, k),
      describe: (r, k) => `X at ${r}, ${k}: ${lowering.inside(r, k) ? short(this.pixel(r, k)) : "padding"}`,
      side,
    });
    this.output = new Grid({
      rows: lowering.oh,
      cols: lowering.ow,
      value: (i, j) => channel(y, pointed.channel).value(i, j),
      heat: heatOf(y),
      label: `Output of ${stage.name}`,
      name: "output",
      point: (i, j) => this.point({ position: i * lowering.ow + j, row: undefined }),
      describe: (i, j) => `Y at ${i}, ${j}: ${short(channel(y, pointed.channel).value(i, j))}`,
      cell: fitted(lowering.oh, lowering.ow, side, side),
    });
    this.window = new Grid({
      rows: lowering.kh,
      cols: lowering.kw,
      value: (a, b) => this.taken(lowering.row(0, a, b)),
      heat: heatOf(x),
      label: "The window",
      name: "patch",
      point: (a, b) => this.point({ row: lowering.row(0, a, b) }),
      cell: fitted(lowering.kh, lowering.kw, 200, 200, 12, 56),
    });
  }

  showChannel() {
    const { captions, input, lowering, output, pointed, stage, x, y } = this;
    const of = `${stage.name}, channel ${pointed.channel}`;
    input.show(paddedValue(lowering, x, pointed.channel), `Input of ${of}`);
    output.show(channel(y, pointed.channel).value, `Output of ${of}`);
    captions.input.textContent = `X[${pointed.channel}], ${times(lowering.height, lowering.width)}`;
    captions.output.textContent = `Y[${pointed.channel}], ${times(lowering.oh, lowering.ow)}`;
    if (this.isMax) return;
    this.product = this.meanProduct();
    this.figure.replaceChildren(this.product.element);
  }

  pixel(r, k) {
    return channel(this.x, this.pointed.channel).value(r, k);
  }

  /** Return the number that a tap of the window reads, or null for padding. */
  taken(row) {
    const [, y, x] = this.lowering.pixel(row, this.pointed.position);
    return this.lowering.inside(y, x) ? this.pixel(y, x) : null;
  }

  point(changes) {
    const { channel: before } = this.pointed;
    Object.assign(this.pointed, changes);
    this.store.state.pointed[this.stage.name] = { ...this.pointed };
    if (before !== this.pointed.channel) this.showChannel();
    this.mark();
  }

  pointAtPixel(y, x) {
    const readers = this.lowering.readers(0, y, x);
    if (readers.length) this.point(readers[Math.floor(readers.length / 2)]);
  }

  /** Return the picture of the mean as a product with the constant row 1 / (KH KW). */
  meanProduct() {
    const { lowering, pointed, stage } = this;
    const { height, width, rows, positions } = lowering;
    const area = height * width;
    const columns = lowering.im2col({
      shape: [1, height, width],
      data: this.x.data.subarray(pointed.channel * area, (pointed.channel + 1) * area),
    });
    return new Product({
      a: matrix(1, rows, new Float32Array(rows).fill(1 / rows)),
      b: columns,
      c: matrix(1, positions, this.y.data.subarray(pointed.channel * positions, (pointed.channel + 1) * positions)),
      names: { a: "1 / (KH KW)", b: "im2col(X)", c: "Y" },
      point: ({ k, n }) => this.point({ row: k, position: n ?? pointed.position }),
      describe: {
        b: (k, n) => {
          const [place, tap] = [lowering.place(n), lowering.tap(k).slice(1)].map((each) => each.join(", "));
          return `${stage.name}, column of ${place}, tap ${tap}: ${short(columns.data[k * positions + n])}`;
        },
      },
      heats: { b: heatOf(this.x), c: heatOf(this.y) },
      width: mainWidth(),
    });
  }

  parts() {
    const { network } = this.store.state;
    const { isMax, stage, x, y } = this;
    return [
      h("h2", {}, `${stage.name}: the ${isMax ? "maximum" : "mean"} of each window`),
      h("div", { class: "tools" }, this.channels.element, legendOf(x, "X"), legendOf(y, "Y")),
      h(
        "div",
        { class: "maps" },
        mapFigure("Input", this.captions.input, this.input, "patch"),
        mapFigure("The window", "number by number", [this.window, isMax ? this.steps : this.sum], "one"),
        mapFigure("Output", this.captions.output, this.output, "result"),
      ),
      this.figure,
      explain({
        equations: equationsOf(stage),
        note: stage.equation,
        shapes: [
          ["X", `C × H × W = ${times(stage.input_shape)}`],
          ["window", windowShape(stage.sweep)],
          ["Y", `C × OH × OW = ${times(y.shape)}`],
        ],
        codes: [
          [stage.layer.split("(")[0], stage.code.forward],
          ["every window, without a copy", network.code.windows],
        ],
      }),
    ];
  }

  mark() {
    const { isMax, lowering, pointed } = this;
    const { position } = pointed;
    const values = Array.from({ length: lowering.rows }, (_, row) => this.taken(row));
    const winner = isMax
      ? values.reduce((best, value, row) => (value !== null && (best < 0 || value > values[best]) ? row : best), -1)
      : -1;
    const row = pointed.row ?? (winner < 0 ? undefined : winner);
    const [, y, x] = row === undefined ? [] : lowering.pixel(row, position);
    const readers = row === undefined ? [] : lowering.readers(0, y, x);
    const others = readers.map((each) => each.position).filter((each) => each !== position);
    const [i, j] = lowering.place(position);
    const place = (each, role) => pixelMark(lowering, ...lowering.pixel(each, position).slice(1), role);
    this.input.mark([
      ...patchMarks(lowering, position),
      ...(row === undefined ? [] : [place(row, "cursor")]),
      ...(winner < 0 ? [] : [place(winner, "result")]),
    ]);
    this.window.marks = [
      ...(row === undefined ? [] : [cellMark(lowering.tap(row).slice(1), "cursor")]),
      ...(winner < 0 ? [] : [cellMark(lowering.tap(winner).slice(1), "result")]),
    ];
    this.window.draw();
    this.output.mark([...outputMarks(lowering, others), cellMark([i, j], "result")]);
    this.output.cursor = [i, j];
    this.input.cursor = paddedPlace(lowering, ...lowering.pixel(row ?? 0, position).slice(1));
    this.product?.select({ m: 0, k: pointed.row, n: position });
    const value = channel(this.y, pointed.channel).value(i, j);
    if (isMax) this.tellMaximum(values, winner, value);
    else this.tellMean(values, value);
    Object.assign(this.element.dataset, { position, channel: pointed.channel, row: row ?? "" });
  }

  tellMaximum(values, winner, value) {
    const equal = values.filter((each) => each === values[winner]).length;
    const [, a, b] = this.lowering.tap(Math.max(0, winner));
    const shown = values.filter((each) => each !== null).map(short);
    const some = shown.length > 12 ? [...shown.slice(0, 12), "…"] : shown;
    const why = equal > 1 ? `${equal} are equal: the first one wins, tap ${a}, ${b}.` : `Tap ${a}, ${b} wins.`;
    const result = h("output", { class: "value", "data-value": value }, fixed(value));
    this.steps.dataset.total = values[winner];
    this.steps.replaceChildren(
      `max( ${some.join(", ")} ) = `,
      h("strong", {}, result),
      h("br"),
      `${why} The gradient will go back to it alone.`,
    );
  }

  /** Write the mean over the taps that count: a window over the edge may count fewer than it has. */
  tellMean(values, value) {
    const all = values.reduce((total, each) => total + (each ?? 0), 0);
    const counted = Math.max(1, this.stage.counts.data[this.pointed.position]);
    const lines =
      values.length <= 12
        ? values.map((each, row) => [
            `tap ${this.lowering.tap(row).slice(1).join(", ")}`,
            each ?? 0,
            row === this.pointed.row ? "marked" : null,
          ])
        : [];
    this.sum.update({ lines: [...lines, ["sum", all, null]], name: `sum / ${counted}`, total: all / counted, value });
  }
}

/** Return the view of a pooling. */
export function poolStage(store, stage) {
  return new PoolView(store, stage).element;
}
