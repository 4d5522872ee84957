// One convolution: image, columns, product and output, linked cell by cell.

import { entry, largest, matrix } from "./arrays.js";
import { diverging } from "./colour.js";
import { h, short, stepper, times } from "./dom.js";
import { explain } from "./explain.js";
import { fitted, Grid } from "./grid.js";
import { Lowering } from "./lowering.js";
import { channel, heatOf, legend } from "./maps.js";
import { Product } from "./product.js";
import { inputOf, outputOf } from "./source.js";

/** What a convolution computes for one image, as matrices: those of the group that a filter belongs to. */
export class Convolution {
  constructor({ network, trace, stage, filter }) {
    const [channels, height, width] = stage.input_shape;
    const [filters] = stage.output_shape;
    const weight = network.weights[`${stage.name}.weight`] ?? network.weights[stage.parameters.find((name) => name.endsWith("weight"))];
    const bias = network.weights[stage.parameters.find((name) => name.endsWith("bias"))];
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

/** Return a grid of channel c of an input with its padding around it, whose cells are pixels (y, x) of the input. */
export function paddedGrid(lowering, x, c, { label, point, describe, heat = heatOf(x), side = 300 }) {
  const [[top, bottom], [left, right]] = lowering.sweep.pads;
  const rows = lowering.height + top + bottom;
  const cols = lowering.width + left + right;
  const { value } = channel(x, c);
  return new Grid({
    rows,
    cols,
    value: (r, k) => (lowering.inside(r - top, k - left) ? value(r - top, k - left) : null),
    heat,
    label,
    point: point && ((r, k) => point(r - top, k - left)),
    describe: describe && ((r, k) => describe(r - top, k - left)),
    cell: fitted(rows, cols, side, side),
  });
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
      marks.push({ rows: [r, r + 1], cols: [c, c + 1], role });
    }
  }
  return marks;
}

/** Return the view of a convolution. */
export function convStage(store, stage) {
  const { network, trace } = store.state;
  const pointed = { filter: 0, channel: 0, position: Math.floor(stage.sweep.output[0] / 2) * stage.sweep.output[1] + Math.floor(stage.sweep.output[1] / 2), ...store.state.pointed[stage.name] };
  const conv = new Convolution({ network, trace, stage, filter: pointed.filter });
  const { lowering } = conv;
  const select = (changes) => {
    Object.assign(pointed, changes);
    store.state.pointed[stage.name] = { ...pointed };
  };
  const rebuild = (changes) => {
    select(changes);
    store.set({ trace: { ...trace } });
  };
  const point = (changes) => {
    select(changes);
    mark();
  };
  const tapText = (row) => {
    const [c, a, b] = lowering.tap(row);
    return `c = ${conv.first + c}, a = ${a}, b = ${b}`;
  };

  const image = paddedGrid(lowering, conv.x, pointed.channel, {
    label: `Input of ${stage.name}, channel ${conv.first + pointed.channel}`,
    point: (y, x) => {
      const found = lowering.readers(pointed.channel, y, x);
      if (found.length) point({ position: found[Math.floor(found.length / 2)].position, row: found[Math.floor(found.length / 2)].row });
    },
    describe: (y, x) => (lowering.inside(y, x) ? `X at ${y}, ${x}: ${short(channel(conv.x, pointed.channel).value(y, x))}` : "padding: 0"),
  });
  const local = pointed.filter % conv.filters;
  const output = new Grid({
    rows: lowering.oh,
    cols: lowering.ow,
    value: (i, j) => entry(conv.z, local, i * lowering.ow + j),
    heat: diverging(largest(conv.z.data)),
    label: `Output of ${stage.name}, filter ${pointed.filter}`,
    point: (i, j) => point({ position: i * lowering.ow + j, row: undefined }),
    describe: (i, j) => `Z at ${i}, ${j}: ${short(entry(conv.z, local, i * lowering.ow + j))}`,
    cell: fitted(lowering.oh, lowering.ow, 300, 300),
  });
  const product = new Product({
    a: conv.weight,
    b: conv.columns,
    c: conv.z,
    names: { a: "W", b: "im2col(X)", c: conv.bias ? "Z = W · im2col(X) + b" : "Z = W · im2col(X)" },
    point: ({ m, k, n }) => {
      const filter = m === undefined ? pointed.filter : conv.group * conv.filters + m;
      const changes = { filter, row: k, position: n ?? pointed.position };
      if (k !== undefined) changes.channel = lowering.tap(k)[0];
      if (changes.filter !== pointed.filter || (changes.channel ?? pointed.channel) !== pointed.channel) rebuild(changes);
      else point(changes);
    },
    describe: {
      a: (r, k) => `W of filter ${conv.group * conv.filters + r} at ${tapText(k)}: ${short(entry(conv.weight, r, k))}`,
      b: (r, p) => `column of ${lowering.place(p).join(", ")}, ${tapText(r)}: ${short(entry(conv.columns, r, p))}`,
      c: (r, p) => `Z of filter ${conv.group * conv.filters + r} at ${lowering.place(p).join(", ")}: ${short(entry(conv.z, r, p))}`,
    },
    width: Math.min(1100, document.getElementById("main").clientWidth - 48),
  });
  const terms = h("div", { class: "terms" });

  function mark() {
    const { position, row } = pointed;
    image.mark([...patchMarks(lowering, position), ...(row === undefined ? [] : pixelMark(lowering, row, position))]);
    const [i, j] = lowering.place(position);
    output.mark([{ rows: [i, i + 1], cols: [j, j + 1], role: "result" }]);
    product.select({ m: local, k: row, n: position });
    terms.replaceChildren(...sumOf(conv, local, pointed));
  }
  mark();

  const [channels] = stage.input_shape;
  const choices = h(
    "div",
    { class: "tools" },
    stepper({ label: "Channel", count: channels / stage.groups, value: pointed.channel, name: (k) => String(conv.first + k), change: (k) => rebuild({ channel: k, row: undefined }) }).element,
    stepper({ label: "Filter", count: stage.output_shape[0], value: pointed.filter, change: (k) => rebuild({ filter: k }) }).element,
    legend(largest(conv.z.data)),
  );
  return h(
    "article",
    { class: "conv" },
    h("h2", {}, `${stage.name}: a convolution is a matrix product`),
    choices,
    h(
      "div",
      { class: "maps" },
      h("figure", { class: "map patch" }, h("figcaption", {}, h("strong", {}, "Image"), ` X[${conv.first + pointed.channel}]`), image.element),
      h("figure", { class: "map" }, h("figcaption", {}, h("strong", {}, "The sum"), " number by number"), terms),
      h("figure", { class: "map result" }, h("figcaption", {}, h("strong", {}, "Output"), ` Z[${pointed.filter}]`), output.element),
    ),
    product.element,
    explain({
      equations: ["conv", "product"],
      shapes: shapesOf(stage, conv),
      codes: [
        [`${stage.layer.split("(")[0]}, lowered`, stage.code.forward],
        ["im2col", network.code.im2col],
        ["every window, without a copy", network.code.windows],
        ["the product", network.code.affine],
      ],
    }),
  );
}

function pixelMark(lowering, row, position) {
  const [[top], [left]] = lowering.sweep.pads;
  const [, y, x] = lowering.pixel(row, position);
  return [{ rows: [y + top, y + top + 1], cols: [x + left, x + left + 1], role: "cursor" }];
}

function shapesOf(stage, conv) {
  const { lowering } = conv;
  const each = stage.groups > 1 ? `, for each of ${stage.groups} groups` : "";
  return [
    ["X", `C × H × W = ${times(stage.input_shape)}`],
    ["window", `KH × KW = ${times(lowering.kh, lowering.kw)}, stride ${times(stage.sweep.stride)}, dilation ${times(stage.sweep.dilation)}, padding ${stage.sweep.pads.flat().join(" ")}`],
    ["columns", `C KH KW × OH OW = ${times(lowering.rows, lowering.positions)}${each}`],
    ["W", `K × C KH KW = ${times(conv.weight.shape)}${each}`],
    ["Z", `K × OH × OW = ${times(stage.output_shape)}`],
  ];
}

/** Return the patch, the filter and their products for the channel shown, and the sum over all channels. */
function sumOf(conv, filter, { channel: c, position, row }) {
  const { lowering, weight, columns, z, bias } = conv;
  const area = lowering.kh * lowering.kw;
  const at = (a, b) => lowering.row(c, a, b);
  const side = 104;
  const small = (value, most, label, role) => {
    const grid = new Grid({
      rows: lowering.kh,
      cols: lowering.kw,
      value,
      heat: diverging(most),
      label,
      cell: fitted(lowering.kh, lowering.kw, side, side, 2, 34),
    });
    const marked = row !== undefined && lowering.tap(row)[0] === c;
    if (marked) {
      const [, a, b] = lowering.tap(row);
      grid.mark([{ rows: [a, a + 1], cols: [b, b + 1], role: "cursor" }]);
    }
    return h("div", { class: `small ${role}` }, grid.element, h("span", { class: "caption" }, label));
  };
  const patch = (a, b) => entry(columns, at(a, b), position);
  const kernel = (a, b) => entry(weight, filter, at(a, b));
  const term = (r) => entry(weight, filter, r) * entry(columns, r, position);
  const sums = Array.from({ length: lowering.channels }, (_, k) => {
    let total = 0;
    for (let r = k * area; r < (k + 1) * area; r++) total += term(r);
    return total;
  });
  const total = sums.reduce((a, b) => a + b, 0) + (bias ? bias[filter] : 0);
  const most = largest(Array.from({ length: area }, (_, r) => term(c * area + r)));
  const rows = Array.from({ length: lowering.rows }, (_, r) => {
    const [k, a, b] = lowering.tap(r);
    return h("tr", { "data-row": r }, [`${conv.first + k}, ${a}, ${b}`, short(entry(columns, r, position)), short(entry(weight, filter, r)), short(term(r))].map((cell) => h("td", {}, cell)));
  });
  return [
    h(
      "div",
      { class: "factors-of-sum" },
      small(patch, largest(conv.x.data), "patch", "patch"),
      h("span", { class: "operator" }, "×"),
      small(kernel, largest(weight.data), "filter", "weight"),
      h("span", { class: "operator" }, "="),
      small((a, b) => term(at(a, b)), most, "terms", ""),
    ),
    h(
      "p",
      { class: "total" },
      h("span", {}, sums.length > 1 ? `${sums.map(short).join(" + ")} ` : `${short(sums[0])} `),
      bias ? h("span", {}, `+ ${short(bias[filter])} (bias) `) : "",
      h("strong", {}, `= ${short(total)}`),
    ),
    h("p", { class: "caption" }, `The package computed `, h("output", { class: "value", "data-value": entry(z, filter, position) }, short(entry(z, filter, position)))),
    h("details", {}, h("summary", {}, `All ${lowering.rows} terms`), h("table", {}, h("thead", {}, h("tr", {}, ["c, a, b", "X", "W", "X W"].map((name) => h("th", {}, name)))), h("tbody", {}, rows))),
  ];
}
