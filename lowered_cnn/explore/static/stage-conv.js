// One convolution: image, columns, product and output, linked cell by cell.

import { entry, largest, matrix } from "./arrays.js";
import { diverging } from "./colour.js";
import { grouped, h, mainWidth, short, stepper, times } from "./dom.js";
import { explain } from "./explain.js";
import { cellMark, fitted, Grid } from "./grid.js";
import { Lowering } from "./lowering.js";
import { channel, heatOf, legend, legendOf, mapFigure } from "./maps.js";
import { Product } from "./product.js";
import { inputOf, outputOf, parameterOf } from "./source.js";
import { ConvSum } from "./stage-conv-sum.js";

/** What a convolution computes for one image, as matrices: those of the group that a filter belongs to. */
export class Convolution {
  constructor({ network, trace, stage, filter }) {
    const [channels, height, width] = stage.input_shape;
    const [filters] = stage.output_shape;
    const weight = parameterOf(network.weights, stage, "weight");
    const bias = parameterOf(network.weights, stage, "bias");
    this.stage = stage;
    this.filters = filters / stage.groups;
    this.group = Math.floor(filter / this.filters);
    const inside = channels / stage.groups;
    this.first = this.group * inside; // the first of the group's channels
    this.lowering = new Lowering({ channels: inside, sweep: stage.sweep });
    const x = inputOf(trace, stage.name);
    this.x = { shape: [inside, height, width], data: x.data.subarray(this.first * height * width, (this.first + inside) * height * width) };
    this.y = outputOf(trace, stage.name);
    const rows = this.lowering.rows;
    const start = this.group * this.filters;
    this.weight = matrix(this.filters, rows, weight.data.subarray(start * rows, (start + this.filters) * rows));
    this.bias = bias ? bias.data.subarray(start, start + this.filters) : null;
    const positions = this.lowering.positions;
    this.z = matrix(this.filters, positions, this.y.data.subarray(start * positions, (start + this.filters) * positions));
    this.columns = this.lowering.im2col(this.x);
  }
}

/** Return channel c of an input (C, H, W) with its padding around it as a function of row and column; null is padding. */
export function paddedValue(lowering, x, c) {
  const [[top], [left]] = lowering.sweep.pads;
  const { value } = channel(x, c);
  return (r, k) => (lowering.inside(r - top, k - left) ? value(r - top, k - left) : null);
}

/** Return a grid of channel c of an input with its padding around it, whose cells are pixels (y, x) of the input. */
export function paddedGrid(lowering, x, c, { label, point, describe, heat = heatOf(x), side = 300, name = "image" }) {
  const [[top, bottom], [left, right]] = lowering.sweep.pads;
  const rows = lowering.height + top + bottom;
  const cols = lowering.width + left + right;
  return new Grid({
    rows,
    cols,
    value: paddedValue(lowering, x, c),
    heat,
    label,
    name,
    point: point && ((r, k) => point(r - top, k - left)),
    describe: describe && ((r, k) => describe(r - top, k - left)),
    cell: fitted(rows, cols, side, side),
  });
}

/** Return the row and the column of a pixel (y, x) on a padded grid. */
export function paddedPlace(lowering, y, x) {
  const [[top], [left]] = lowering.sweep.pads;
  return [y + top, x + left];
}

/** Return the frame of a pixel (y, x) on a padded grid. */
export function pixelMark(lowering, y, x, role = "cursor") {
  const [r, c] = paddedPlace(lowering, y, x);
  return cellMark([r, c], role);
}

/** Return the tinted cells of a grid of outputs that some windows, by their positions, lead to. */
export function outputMarks(lowering, positions, role = "cursor") {
  return positions.map((position) => {
    const [i, j] = lowering.place(position);
    return { ...cellMark([i, j], role), light: true };
  });
}

/** Return the position in the middle of the output. */
export function middle({ output: [oh, ow] }) {
  return Math.floor(oh / 2) * ow + Math.floor(ow / 2);
}

/** Return how many pixels wide and high each map can be, beside a figure of that width, in the main part of the page. */
export function mapSide(beside = 0) {
  const room = mainWidth();
  const half = (room - beside - 88) / 2;
  return Math.max(200, Math.min(380, half < 200 ? Math.min(room, 340) : half));
}

/** Return the frames of a window's taps on a padded grid. */
export function patchMarks(lowering, position, role = "patch") {
  const { stride, dilation } = lowering.sweep;
  const [i, j] = lowering.place(position);
  const [y, x] = [i * stride[0], j * stride[1]];
  const marks = [{ rows: [y, y + dilation[0] * (lowering.kh - 1) + 1], cols: [x, x + dilation[1] * (lowering.kw - 1) + 1], role }];
  if (Math.max(...dilation) === 1) return marks;
  for (let a = 0; a < lowering.kh; a++) {
    for (let b = 0; b < lowering.kw; b++) {
      const [r, c] = [y + a * dilation[0], x + b * dilation[1]];
      marks.push(cellMark([r, c], role));
    }
  }
  return marks;
}

/**
 * The view of a convolution: image, columns, product and output, each of which points into all others.
 *
 * What is pointed at is kept as `pointed`: a filter, a channel of its group and a position, always; a row of the columns
 * (a tap), if a single term is meant; `along`, if that row is meant at every position; and a pixel that no window reads.
 */
class ConvView {
  constructor(store, stage) {
    Object.assign(this, { store, stage });
    this.pointed = { filter: 0, channel: 0, position: middle(stage.sweep), ...store.state.pointed[stage.name] };
    this.filters = stepper({
      label: "Filter",
      count: stage.output_shape[0],
      value: this.pointed.filter,
      change: (filter) => this.point({ filter }),
    });
    this.body = h("div");
    this.channelChoice = h("span");
    this.legends = h("span", { class: "legends" });
    this.element = h(
      "article",
      { class: "conv" },
      h("h2", {}, `${stage.name}: a convolution is a matrix product`),
      h("div", { class: "tools" }, this.channelChoice, this.filters.element, this.legends),
      this.body,
    );
    this.build();
  }

  /** Fill the view for the group that the filter belongs to. */
  build() {
    const { network, trace } = this.store.state;
    const { stage, pointed } = this;
    this.conv = new Convolution({ network, trace, stage, filter: pointed.filter });
    this.shown = { ...pointed };
    this.sum = new ConvSum(this.conv, pointed, (row) => this.point({ row }));
    const side = mapSide(this.sum.between ? this.sum.width : 0);
    this.image = this.imageGrid(side);
    this.output = this.outputGrid(side);
    this.product = this.figure();
    this.channels = stepper({
      label: "Channel",
      count: this.conv.lowering.channels,
      value: pointed.channel,
      name: (k) => String(this.conv.first + k),
      change: (channel) => this.point({ channel }),
    });
    this.channelChoice.replaceChildren(this.channels.element);
    this.legends.replaceChildren(...this.scales());
    this.captions = { image: h("span"), output: h("span") };
    this.said = h("p", { class: "said" });
    this.body.replaceChildren(...this.parts());
    this.mark();
  }

  /** Return the number of the filter within its group. */
  get local() {
    return this.pointed.filter % this.conv.filters;
  }

  point(changes) {
    const group = (filter) => Math.floor(filter / this.conv.filters);
    Object.assign(this.pointed, { row: undefined, along: false, unread: null }, changes);
    this.store.state.pointed[this.stage.name] = { ...this.pointed };
    if (group(this.pointed.filter) === this.conv.group) this.mark();
    else this.build();
  }

  pointAtPixel(y, x) {
    const { channel } = this.pointed;
    const readers = this.conv.lowering.readers(channel, y, x);
    const { row, position } = readers[Math.floor(readers.length / 2)] ?? {};
    this.point(readers.length ? { row, position } : { unread: [y, x] });
  }

  pointAtProduct({ m, k, n }) {
    const changes = { row: k, along: n === undefined };
    if (m !== undefined) changes.filter = this.conv.group * this.conv.filters + m;
    if (n !== undefined) changes.position = n;
    if (k !== undefined) changes.channel = this.conv.lowering.tap(k)[0];
    this.point(changes);
  }

  imageGrid(side) {
    const { conv, pointed } = this;
    const text = (y, x) => `X[${conv.first + pointed.channel}, ${y}, ${x}]`;
    return paddedGrid(conv.lowering, conv.x, pointed.channel, {
      label: "",
      point: (y, x) => this.pointAtPixel(y, x),
      describe: (y, x) =>
        conv.lowering.inside(y, x) ? `${text(y, x)} = ${short(channel(conv.x, pointed.channel).value(y, x))}` : "padding: 0",
      side,
    });
  }

  outputGrid(side) {
    const { conv, pointed } = this;
    const { oh, ow } = conv.lowering;
    const value = (i, j) => entry(conv.z, this.local, i * ow + j);
    return new Grid({
      rows: oh,
      cols: ow,
      value,
      heat: diverging(largest(conv.z.data)),
      label: "",
      name: "output",
      point: (i, j) => this.point({ position: i * ow + j }),
      describe: (i, j) => `Z[${pointed.filter}, ${i}, ${j}] = ${short(value(i, j))}`,
      cell: fitted(oh, ow, side, side),
    });
  }

  figure() {
    const { conv } = this;
    const { lowering } = conv;
    const filter = (m) => conv.group * conv.filters + m;
    const place = (n) => lowering.place(n).join(", ");
    return new Product({
      a: conv.weight,
      b: conv.columns,
      c: conv.z,
      names: { a: "W", b: "im2col(X)", c: conv.bias ? "Z = W · im2col(X) + b" : "Z = W · im2col(X)" },
      point: (indices) => this.pointAtProduct(indices),
      describe: {
        a: (m, k) => `W[${filter(m)}, ${tapText(conv, k)}] = ${short(entry(conv.weight, m, k))}`,
        b: (k, n) => `column of position ${place(n)}, tap ${tapText(conv, k)}: ${short(entry(conv.columns, k, n))}`,
        c: (m, n) => `Z[${filter(m)}, ${place(n)}] = ${short(entry(conv.z, m, n))}`,
      },
      heats: { b: heatOf(conv.x) },
      width: mainWidth(),
    });
  }

  scales() {
    const { x, weight, z } = this.conv;
    return [legendOf(x, "X"), legend(largest(weight.data), "W"), legend(largest(z.data), "Z")];
  }

  parts() {
    const { network } = this.store.state;
    const { conv, stage } = this;
    return [
      h(
        "div",
        { class: "maps" },
        mapFigure("Image", this.captions.image, this.image, "patch"),
        mapFigure("The sum", "number by number", this.sum, this.sum.place),
        mapFigure("Output", this.captions.output, this.output, "result"),
      ),
      this.said,
      h("h3", {}, "All positions and all filters at once"),
      this.product.element,
      explain({
        equations: ["conv", "product"],
        shapes: convShapes(stage, conv),
        codes: [
          [`${stage.layer.split("(")[0]}, lowered`, stage.code.forward],
          ["im2col", network.code.im2col],
          ["every window, without a copy", network.code.windows],
          ["the product", network.code.affine],
        ],
      }),
    ];
  }

  /** Show what is pointed at, in every view. */
  mark() {
    const { conv, pointed, local } = this;
    const { lowering } = conv;
    const { row, position } = pointed;
    this.showMaps();
    const pixel = row === undefined ? null : lowering.pixel(row, position);
    const readers = pixel && !pointed.along ? lowering.readers(...pixel) : [];
    this.image.mark([
      ...(pointed.along ? tapMarks(lowering, row) : []),
      ...patchMarks(lowering, position),
      ...cursorMarks(lowering, pointed, pixel),
    ]);
    const [i, j] = lowering.place(position);
    const everywhere = { rows: [0, lowering.oh], cols: [0, lowering.ow], role: "cursor" };
    const others = readers.filter((each) => each.position !== position);
    const reached = pointed.along
      ? [everywhere]
      : outputMarks(
          lowering,
          others.map((each) => each.position),
        );
    this.output.mark([...reached, cellMark([i, j], "result")]);
    this.output.cursor = [i, j];
    this.image.cursor = paddedPlace(lowering, ...(pixel ?? lowering.pixel(lowering.middleRow, position)).slice(1));
    this.product.select({ m: local, k: row, n: position }, pointed.along ? alongMarks(conv, local, row) : readerMarks(others, local));
    this.sum.update(local);
    this.said.textContent = spoken(this, pixel, readers);
    Object.assign(this.element.dataset, { position, filter: pointed.filter, channel: conv.first + pointed.channel, row: row ?? "" });
  }

  showMaps() {
    const { conv, pointed, shown, stage } = this;
    const first = !this.image.label;
    if (first || shown.channel !== pointed.channel) {
      const label = `Input of ${stage.name}, channel ${conv.first + pointed.channel}`;
      this.image.show(paddedValue(conv.lowering, conv.x, pointed.channel), label);
      this.captions.image.textContent = `X[${conv.first + pointed.channel}], ${times(conv.lowering.height, conv.lowering.width)}`;
      this.channels.set(pointed.channel);
    }
    if (first || shown.filter !== pointed.filter) {
      this.output.show(this.output.value, `Output of ${stage.name}, filter ${pointed.filter}`);
      this.captions.output.textContent = `Z[${pointed.filter}], ${times(conv.lowering.oh, conv.lowering.ow)}`;
      this.filters.set(pointed.filter);
    }
    this.shown = { ...pointed };
  }
}

/** Return the view of a convolution. */
export function convStage(store, stage) {
  return new ConvView(store, stage).element;
}

function tapText(conv, row) {
  const [c, a, b] = conv.lowering.tap(row);
  return `${conv.first + c}, ${a}, ${b}`;
}

function cursorMarks(lowering, { unread }, pixel) {
  if (unread) return [pixelMark(lowering, ...unread)];
  return pixel ? [pixelMark(lowering, pixel[1], pixel[2])] : [];
}

/** Return the pixels that one tap reads, over all positions. */
function tapMarks(lowering, row) {
  const [first, last] = [0, lowering.positions - 1].map((position) => lowering.pixel(row, position));
  const [start, end] = [first, last].map(([, y, x]) => pixelMark(lowering, y, x));
  if (Math.max(...lowering.sweep.stride) === 1)
    return [{ ...start, rows: [start.rows[0], end.rows[1]], cols: [start.cols[0], end.cols[1]] }];
  return Array.from({ length: lowering.positions }, (_, position) => {
    const [, y, x] = lowering.pixel(row, position);
    return { ...pixelMark(lowering, y, x), light: true };
  });
}

function alongMarks(conv, filter, row) {
  const line = (r) => [{ rows: [r, r + 1], cols: [0, conv.lowering.positions], role: "cursor" }];
  return { b: line(row), c: line(filter) };
}

function readerMarks(readers, filter) {
  const cells = (rowOf) =>
    readers.map(({ row, position }) => ({ ...cellMark([rowOf(row), position], "cursor"), light: true }));
  return { b: cells((row) => row), c: cells(() => filter) };
}

/** Return a sentence on what is pointed at. */
function spoken({ conv, pointed }, pixel, readers) {
  const { lowering } = conv;
  if (pointed.unread) return `No window reads pixel ${pointed.unread.join(", ")}.`;
  const { filter, position } = pointed;
  const place = lowering.place(position).join(", ");
  if (!pixel) return `Z[${filter}, ${place}] is row ${filter % conv.filters} of W times column ${position} of im2col(X).`;
  const weight = `W[${filter}, ${tapText(conv, pointed.row)}]`;
  if (pointed.along)
    return `${weight} multiplies all of row ${pointed.row} of the columns: it takes part in every output of filter ${filter}.`;
  const [c, y, x] = pixel;
  const name = lowering.inside(y, x) ? `X[${conv.first + c}, ${y}, ${x}]` : "This zero of the padding";
  const often = readers.length === 1 ? "once" : `${readers.length} times`;
  return `${name} appears in the columns ${often}: at position ${place} it is multiplied by ${weight}.`;
}

/** Return the lengths of a window as text. */
export function windowShape({ kernel, stride, dilation, pads }) {
  const more = `stride ${times(stride)}, dilation ${times(dilation)}, padding ${pads.flat().join(" ")}`;
  return `KH × KW = ${times(kernel)}, ${more}`;
}

function convShapes(stage, conv) {
  const { lowering } = conv;
  const each = stage.groups > 1 ? `, for each of ${stage.groups} groups` : "";
  return [
    ["X", `C × H × W = ${times(stage.input_shape)}`],
    ["window", windowShape(stage.sweep)],
    ["columns", `C KH KW × OH OW = ${times(lowering.rows, lowering.positions)}${each}`],
    ["W", `K × C KH KW = ${times(conv.weight.shape)}${each}`],
    ["Z", `K × OH × OW = ${times(stage.output_shape)}`],
    ["work", `2 M K N = ${grouped(2 * stage.groups * conv.filters * lowering.rows * lowering.positions)} FLOP`],
  ];
}
