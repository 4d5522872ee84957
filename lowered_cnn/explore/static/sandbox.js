// The sandbox: a small image and one filter whose numbers are edited; columns, product and output follow, in both directions.

import { entry, largest, matrix, multiply } from "./arrays.js";
import { diverging } from "./colour.js";
import { h, short, stepper, times } from "./dom.js";
import { sizeInNumbers } from "./equations.js";
import { explain } from "./explain.js";
import { flowButton } from "./flow.js";
import { cellMark, fitted, Grid } from "./grid.js";
import { Lowering } from "./lowering.js";
import { legend, mapFigure } from "./maps.js";
import { Product } from "./product.js";
import { paddedPlace, patchMarks } from "./stage-conv.js";

const SANDBOX_LEAST = 3; // sides of the image
const SANDBOX_MOST = 10;
const SANDBOX_CELL = 30; // pixels, so that each number can be read

const SANDBOX_IMAGES = {
  "counting numbers": (n) => (r, c) => r * n + c + 1,
  "a step edge": (n) => (r, c) => (c < n / 2 ? 0 : 9),
  "a single one": (n) => (r, c) => (r === Math.floor(n / 2) && c === Math.floor(n / 2) ? 1 : 0),
  "a slope": () => (r, c) => r + c,
  "random digits": () => () => Math.floor(Math.random() * 10),
};
const SANDBOX_DIGIT = "the image at hand";

const SANDBOX_FILTERS = {
  identity: (kh, kw) => (a, b) => (a === Math.floor((kh - 1) / 2) && b === Math.floor((kw - 1) / 2) ? 1 : 0),
  blur: (kh, kw) => () => 1 / (kh * kw),
  "Sobel, left to right": [
    [-1, 0, 1],
    [-2, 0, 2],
    [-1, 0, 1],
  ],
  "Sobel, top to bottom": [
    [-1, -2, -1],
    [0, 0, 0],
    [1, 2, 1],
  ],
  Laplacian: [
    [0, 1, 0],
    [1, -4, 1],
    [0, 1, 0],
  ],
  "counting numbers": (kh, kw) => (a, b) => a * kw + b + 1,
  random: () => () => Math.floor(Math.random() * 7) - 3,
};
const SANDBOX_GRADIENTS = {
  "all ones": () => 1,
  "a single one": (k, count) => Number(k === Math.floor(count / 2)),
  "random digits": () => Math.floor(Math.random() * 10),
};
const SANDBOX_OWN = "your own";

/** Show the view in an element; returns what ends it. */
export function sandboxView(store, element) {
  const state = (store.state.sandbox ??= sandboxStart());
  const body = h("div", {});
  let redraw = () => {};
  const change = (changes) => {
    Object.assign(state, changes);
    sandboxFit(state);
    controls.update();
    build();
  };
  const controls = sandboxControls(store, state, change);
  function build() {
    const sweep = sandboxSweep(state);
    const size = sandboxSize(sweep);
    if (!sweep.fits) {
      body.replaceChildren(size, h("p", { class: "sandbox-misfit", role: "alert", "data-name": "misfit" }, sandboxMisfit(sweep)));
      return;
    }
    const lowering = new Lowering({ channels: 1, sweep });
    if (state.dz.length !== lowering.positions) state.dz = sandboxGradient(state, lowering.positions);
    const shown = (state.backward ? sandboxBackward : sandboxForward)(state, lowering, () => controls.update());
    redraw = shown.refresh;
    body.replaceChildren(size, shown.element);
    redraw();
  }
  element.replaceChildren(
    h("h2", {}, "Sandbox: one filter on a small image"),
    h("p", {}, "Point at a cell and type a number, or press and drag it up or down. Everything else follows."),
    controls.element,
    body,
    sandboxExplained(store.state.network),
  );
  build();
  const resized = () => redraw();
  addEventListener("resize", resized);
  return () => removeEventListener("resize", resized);
}

function sandboxStart() {
  const state = {
    side: 6,
    imagePreset: "counting numbers",
    filterPreset: "counting numbers",
    kernel: [3, 3],
    stride: [1, 1],
    dilation: [1, 1],
    padding: 0,
    backward: false,
    added: Infinity,
    pixel: null,
    unread: null,
    dz: new Float32Array(0),
    dzPreset: "all ones",
  };
  state.image = sandboxImage(state.side, SANDBOX_IMAGES[state.imagePreset]);
  state.filter = sandboxFilter(state, state.filterPreset);
  state.filterKernel = state.kernel;
  sandboxFit(state);
  return state;
}

function sandboxImage(side, rule) {
  const at = rule(side);
  return Float32Array.from({ length: side * side }, (_, k) => at(Math.floor(k / side), k % side));
}

function sandboxGradient(state, count) {
  if (!SANDBOX_GRADIENTS[state.dzPreset]) state.dzPreset = "all ones";
  return Float32Array.from({ length: count }, (_, k) => SANDBOX_GRADIENTS[state.dzPreset](k, count));
}

/** Return an image (C, H, W) shrunk to a square, each cell the mean of the pixels below it, in whole numbers up to 9. */
function sandboxShrunk({ shape: [, height, width], data }, side) {
  const means = sandboxImage(side, () => (r, c) => {
    let [sum, count] = [0, 0];
    for (let y = Math.floor((r * height) / side); y < Math.max(((r + 1) * height) / side, 1); y++) {
      for (let x = Math.floor((c * width) / side); x < Math.max(((c + 1) * width) / side, 1); x++, count++) sum += data[y * width + x];
    }
    return sum / count;
  });
  const most = largest(means);
  return means.map((value) => Math.round((9 * value) / most));
}

function sandboxFilter(state, preset) {
  const rule = SANDBOX_FILTERS[preset];
  if (Array.isArray(rule)) {
    state.kernel = [3, 3];
    return Float32Array.from(rule.flat());
  }
  const [kh, kw] = state.kernel;
  const at = rule(kh, kw);
  return Float32Array.from({ length: kh * kw }, (_, k) => at(Math.floor(k / kw), k % kw));
}

/** Make the filter fit the kernel: a preset of any size is made anew, another is cut or padded with 0. The place moves to the middle. */
function sandboxFit(state) {
  const [kh, kw] = state.kernel;
  const [oldHeight, oldWidth] = state.filterKernel;
  if (kh !== oldHeight || kw !== oldWidth) {
    const old = state.filter;
    const kept = (a, b) => (a < oldHeight && b < oldWidth ? old[a * oldWidth + b] : 0);
    const grows = typeof SANDBOX_FILTERS[state.filterPreset] === "function";
    state.filter = grows
      ? sandboxFilter(state, state.filterPreset)
      : Float32Array.from({ length: kh * kw }, (_, k) => kept(Math.floor(k / kw), k % kw));
    if (!grows) state.filterPreset = SANDBOX_OWN;
    state.filterKernel = state.kernel;
  }
  const { output } = sandboxSweep(state);
  const geometry = `${state.kernel} ${output}`;
  if (state.geometry !== geometry) {
    state.position = Math.floor((output[0] - 1) / 2) * output[1] + Math.floor((output[1] - 1) / 2);
    state.row = Math.floor((kh * kw) / 2);
  }
  state.geometry = geometry;
  state.pixel = state.unread = null;
  state.added = Infinity;
}

/** Return the window laid over the image, and whether it fits. */
function sandboxSweep({ side, kernel, stride, dilation, padding }) {
  const extent = kernel.map((k, axis) => dilation[axis] * (k - 1) + 1);
  const pads = extent.map((span, axis) => {
    if (padding !== "same") return [padding, padding];
    const total = Math.max(0, (Math.ceil(side / stride[axis]) - 1) * stride[axis] + span - side);
    return [Math.floor(total / 2), total - Math.floor(total / 2)];
  });
  const padded = pads.map(([before, after]) => side + before + after);
  const output = extent.map((span, axis) => Math.max(0, Math.floor((padded[axis] - span) / stride[axis]) + 1));
  return { kernel, stride, dilation, pads, size: [side, side], output, extent, padded, fits: Math.min(...output) > 0 };
}

function sandboxMisfit({ extent, padded }) {
  const remedy = "use more padding, or a smaller kernel or dilation";
  return `The window spans ${times(extent)}, but the padded image is only ${times(padded)}: ${remedy}.`;
}

function sandboxSize(sweep) {
  const axis = (letter, k) =>
    sizeInNumbers(letter, {
      size: sweep.size[k],
      pads: sweep.pads[k],
      dilation: sweep.dilation[k],
      kernel: sweep.kernel[k],
      stride: sweep.stride[k],
    });
  return h("div", { class: "sandbox-size", "data-name": "size", "data-output": sweep.output.join(" ") }, axis("H", 0), axis("W", 1));
}

function sandboxControls(store, state, change) {
  const choice = (label, names, value, pick) => {
    const select = h(
      "select",
      { "aria-label": label, onchange: () => pick(select.value) },
      names.map((name) => h("option", { value: name, selected: name === value }, name)),
    );
    return { select, element: h("label", { class: "sandbox-choice" }, label, " ", select) };
  };
  const pickImage = (preset) =>
    change({
      imagePreset: preset,
      image:
        preset === SANDBOX_DIGIT && store.state.image
          ? sandboxShrunk(store.state.image, state.side)
          : sandboxImage(state.side, SANDBOX_IMAGES[preset] ?? (() => () => 0)),
    });
  const pickFilter = (preset) => {
    if (preset === SANDBOX_OWN) return change({ filterPreset: preset });
    const filter = sandboxFilter(state, preset);
    state.filterKernel = state.kernel;
    change({ filterPreset: preset, filter });
  };
  const image = choice("Image", [...Object.keys(SANDBOX_IMAGES), SANDBOX_DIGIT, SANDBOX_OWN], state.imagePreset, (name) =>
    name === SANDBOX_OWN ? change({ imagePreset: name }) : pickImage(name),
  );
  const filter = choice("Filter", [...Object.keys(SANDBOX_FILTERS), SANDBOX_OWN], state.filterPreset, pickFilter);
  const pickGradient = (dzPreset) => {
    state.dzPreset = dzPreset;
    if (dzPreset !== SANDBOX_OWN) state.dz = sandboxGradient(state, state.dz.length);
    change({});
  };
  const gradient = choice("dZ", [...Object.keys(SANDBOX_GRADIENTS), SANDBOX_OWN], state.dzPreset, pickGradient);
  const resized = (k) => {
    state.side = SANDBOX_LEAST + k;
    pickImage(state.imagePreset === SANDBOX_OWN ? "counting numbers" : state.imagePreset);
  };
  const number = (label, count, first, value, set) =>
    stepper({ label, count, value: value - first, name: (k) => String(k + first), change: (k) => set(k + first) });
  const paddings = [0, 1, 2, 3, "same"];
  const steps = {
    side: stepper({
      label: "Side",
      count: SANDBOX_MOST - SANDBOX_LEAST + 1,
      value: state.side - SANDBOX_LEAST,
      name: (k) => String(k + SANDBOX_LEAST),
      change: resized,
    }),
    kh: number("Kernel height", 5, 1, state.kernel[0], (k) => change({ kernel: [k, state.kernel[1]] })),
    kw: number("Kernel width", 5, 1, state.kernel[1], (k) => change({ kernel: [state.kernel[0], k] })),
    stride: number("Stride", 3, 1, state.stride[0], (k) => change({ stride: [k, k] })),
    padding: stepper({
      label: "Padding",
      count: 5,
      value: paddings.indexOf(state.padding),
      name: (k) => String(paddings[k]),
      change: (k) => change({ padding: paddings[k] }),
    }),
    dilation: number("Dilation", 3, 1, state.dilation[0], (k) => change({ dilation: [k, k] })),
  };
  const direction = (label, backward) =>
    h(
      "button",
      {
        type: "button",
        "data-name": label.toLowerCase(),
        "aria-pressed": String(state.backward === backward),
        onclick: () => change({ backward }),
      },
      label,
    );
  const switches = [direction("Forward", false), direction("Backward", true)];
  const update = () => {
    image.select.value = state.imagePreset;
    filter.select.value = state.filterPreset;
    gradient.select.value = state.dzPreset;
    image.element.hidden = state.backward;
    gradient.element.hidden = !state.backward;
    steps.side.set(state.side - SANDBOX_LEAST);
    steps.kh.set(state.kernel[0] - 1);
    steps.kw.set(state.kernel[1] - 1);
    switches.forEach((button, k) => button.setAttribute("aria-pressed", String(state.backward === (k === 1))));
  };
  const element = h(
    "div",
    { class: "sandbox-controls" },
    h(
      "div",
      { class: "tools" },
      h("span", { class: "switch", role: "group", "aria-label": "Direction" }, switches),
      image.element,
      gradient.element,
      steps.side.element,
      filter.element,
    ),
    h(
      "div",
      { class: "tools" },
      ["kh", "kw", "stride", "padding", "dilation"].map((name) => steps[name].element),
    ),
  );
  update();
  return { element, update };
}

/** Return a grid over data of the given size, with its padding around it; its colours follow the numbers in it. */
function sandboxGrid({
  name,
  label,
  rows,
  cols,
  pads = [
    [0, 0],
    [0, 0],
  ],
  data,
  point,
  edit,
  describe,
}) {
  const [[top, bottom], [left, right]] = pads;
  const at = (r, c) => (r >= top && c >= left && r < top + rows && c < left + cols ? (r - top) * cols + c - left : -1);
  const height = rows + top + bottom;
  const width = cols + left + right;
  let heat = diverging(largest(data()));
  const grid = new Grid({
    rows: height,
    cols: width,
    value: (r, c) => (at(r, c) < 0 ? null : data()[at(r, c)]),
    heat: (value) => heat(value),
    label,
    point: point && ((r, c) => point(r - top, c - left)),
    edit: edit && ((r, c, value) => at(r, c) >= 0 && edit(at(r, c), value)),
    describe: (r, c) => (at(r, c) < 0 ? "padding: 0" : `${describe ?? name} at ${r - top}, ${c - left}: ${short(data()[at(r, c)])}`),
    cell: fitted(height, width, 300, 300, SANDBOX_CELL, 34),
  });
  grid.element.dataset.name = name;
  grid.recolour = () => {
    heat = diverging(largest(data()));
    grid.draw();
  };
  grid.inner = [top, left];
  return grid;
}

/** Return the field in which the number of the cell pointed at is typed, also on a telephone. */
function sandboxField(label, grid) {
  const input = h("input", {
    type: "number",
    step: "any",
    "aria-label": `${label}: the number of the cell pointed at`,
    oninput: () => input.value !== "" && Number.isFinite(Number(input.value)) && grid.edit(...grid.cursor, Number(input.value)),
  });
  const place = h("span", {});
  const update = () => {
    const [r, c] = grid.cursor;
    const value = grid.value(r, c);
    place.textContent = `${r - grid.inner[0]}, ${c - grid.inner[1]}`;
    input.disabled = value === null;
    if (document.activeElement !== input) input.value = value === null ? "" : String(Number(value.toPrecision(4)));
  };
  return { element: h("label", { class: "sandbox-field" }, "Cell ", place, " ", input), update };
}

/** Move a grid's cursor, where typed numbers go, to a cell that was chosen elsewhere. */
function sandboxMove(grid, [y, x]) {
  const [r, c] = [y + grid.inner[0], x + grid.inner[1]];
  if (grid.cursor[0] !== r || grid.cursor[1] !== c) Object.assign(grid, { cursor: [r, c], went: false });
}

/** Return the filter's grid with its field. */
function sandboxWeights(state, lowering, point, edited) {
  const grid = sandboxGrid({
    name: "filter",
    label: `Filter, ${times(lowering.kh, lowering.kw)}; type a number into the cell pointed at`,
    rows: lowering.kh,
    cols: lowering.kw,
    data: () => state.filter,
    point: (a, b) => point(lowering.row(0, a, b)),
    edit: (k, value) => {
      state.filter[k] = value;
      state.filterPreset = SANDBOX_OWN;
      edited();
    },
    describe: "W",
  });
  return { grid, field: sandboxField("Filter", grid) };
}

function sandboxForward(state, lowering, changed) {
  const x = {
    shape: [1, state.side, state.side],
    get data() {
      return state.image;
    },
  };
  let columns, z, product;
  const compute = () => {
    columns = lowering.im2col(x);
    z = multiply(matrix(1, lowering.rows, state.filter), columns);
  };
  compute();
  const point = (changes) => {
    Object.assign(state, { unread: null }, changes);
    mark();
  };
  const image = sandboxGrid({
    name: "image",
    label: `Image, ${times(state.side, state.side)}; type a number into the cell pointed at`,
    rows: state.side,
    cols: state.side,
    pads: lowering.sweep.pads,
    data: () => state.image,
    point: (y, px) => {
      const found = lowering.readers(0, y, px);
      point(found.find((each) => each.position === state.position) ?? found[Math.floor(found.length / 2)] ?? { unread: [y, px] });
    },
    edit: (k, value) => {
      state.image[k] = value;
      state.imagePreset = SANDBOX_OWN;
      refresh();
    },
    describe: "X",
  });
  const weights = sandboxWeights(
    state,
    lowering,
    (row) => point({ row }),
    () => refresh(),
  );
  const output = sandboxGrid({
    name: "output",
    label: `Output, ${times(lowering.oh, lowering.ow)}`,
    rows: lowering.oh,
    cols: lowering.ow,
    data: () => z.data,
    point: (i, j) => point({ position: i * lowering.ow + j }),
    describe: "Z",
  });
  const field = sandboxField("Image", image);
  const sum = h("div", { class: "terms", "data-name": "sum" });
  const scale = h("div", {});
  const place = h("div", { class: "sandbox-product" });
  const text = h("pre", { tabindex: "0", "data-name": "numbers" });
  function refresh() {
    compute();
    for (const grid of [image, weights.grid, output]) grid.recolour();
    product = sandboxProduct(place, {
      a: matrix(1, lowering.rows, state.filter),
      b: columns,
      c: z,
      names: { a: "W as a row", b: "columns = im2col(X)", c: "Z = W · columns" },
      grids: { a: "filter-row", b: "columns", c: "output-row" },
      point: ({ k, n }) => point({ ...(k === undefined ? {} : { row: k }), ...(n === undefined ? {} : { position: n }) }),
      lowering,
    });
    scale.replaceChildren(legend(largest(z.data)));
    text.textContent = sandboxText({
      X: matrix(state.side, state.side, state.image),
      W: matrix(lowering.kh, lowering.kw, state.filter),
      "columns = im2col(X)": columns,
      "Z = W · columns": matrix(lowering.oh, lowering.ow, z.data),
    });
    changed();
    mark();
  }
  function mark() {
    const { position, row } = state;
    const [[top], [left]] = lowering.sweep.pads;
    const [, y, px] = lowering.pixel(row, position);
    const [, a, b] = lowering.tap(row);
    image.mark([...patchMarks(lowering, position), cellMark([y + top, px + left], "cursor")]);
    weights.grid.mark([cellMark([a, b], "cursor")]);
    output.mark([cellMark(lowering.place(position), "result")]);
    sandboxMove(image, state.unread ?? [y, px]);
    sandboxMove(weights.grid, [a, b]);
    product.select({ m: 0, k: row, n: position });
    sum.replaceChildren(...sandboxSum(state, lowering, columns));
    field.update();
    weights.field.update();
  }
  const element = h(
    "article",
    {},
    h(
      "div",
      { class: "maps" },
      mapFigure("Image", "X", [image, field], "patch"),
      mapFigure("Filter", "W", [weights.grid, weights.field], "weight"),
      mapFigure("The sum", "number by number", sum),
      mapFigure("Output", "Z", [output, scale], "result"),
    ),
    flowButton("The patch becomes a column", () => [image, product.b, sandboxMoves(lowering, state.position)]),
    place,
    h("details", { class: "sandbox-text" }, h("summary", {}, "The numbers as text"), text),
  );
  return { element, refresh };
}

/** Return for each tap of a window its cell in the padded image, and the one in the columns to which im2col copies it. */
function sandboxMoves(lowering, position) {
  return Array.from({ length: lowering.rows }, (_, row) => {
    const [, y, x] = lowering.pixel(row, position);
    return [paddedPlace(lowering, y, x), [row, position]];
  });
}

/** Put the product's picture in its place, scrolled as the one before. */
function sandboxProduct(place, { grids, lowering, ...what }) {
  const tap = (row) => lowering.tap(row).slice(1).join(", ");
  const at = (position) => lowering.place(position).join(", ");
  const describe = {
    a: (r, k) => `W at ${tap(Math.max(r, k))}: ${short(entry(what.a, r, k))}`,
    b: (r, n) => `${what.b.shape[0] > 1 ? `tap ${tap(r)}, ` : ""}position ${at(n)}: ${short(entry(what.b, r, n))}`,
    c: (r, n) => `${what.c.shape[0] > 1 ? `tap ${tap(r)}, ` : ""}position ${at(n)}: ${short(entry(what.c, r, n))}`,
  };
  const product = new Product({ ...what, describe, width: place.clientWidth || 900, height: 900, least: SANDBOX_CELL, most: 34 });
  for (const key of ["a", "b", "c"]) product[key].element.dataset.name = grids[key];
  const old = place.querySelector(".factors");
  const zoom = place.querySelector("input")?.value ?? "0";
  const left = old?.scrollLeft;
  place.replaceChildren(product.element);
  const factors = place.querySelector(".factors");
  if (zoom !== "0") {
    product.zoom.value = zoom;
    product.zoom.dispatchEvent(new Event("input"));
  }
  factors.scrollLeft = left ?? (what.a.shape[1] > 1 ? product.a.element.offsetWidth : 0);
  return product;
}

/** Return patch times filter, tap by tap, and their sum. */
function sandboxSum(state, lowering, columns) {
  const { position, row } = state;
  const patch = Float32Array.from({ length: lowering.rows }, (_, r) => entry(columns, r, position));
  const terms = patch.map((value, r) => value * state.filter[r]);
  const total = terms.reduce((sum, term) => sum + term, 0);
  const small = (name, data, role) => {
    const grid = sandboxGrid({
      name: `sum-${name}`,
      label: `${name} at the position pointed at`,
      rows: lowering.kh,
      cols: lowering.kw,
      data: () => data,
    });
    grid.resize(SANDBOX_CELL);
    grid.mark([cellMark(lowering.tap(row).slice(1), "cursor")]);
    return h("div", { class: `small ${role}` }, grid.element, h("span", { class: "caption" }, name));
  };
  const signed = (value) => (value < 0 ? `(${short(value)})` : short(value));
  return [
    h(
      "div",
      { class: "factors-of-sum" },
      small("patch", patch, "patch"),
      h("span", { class: "operator" }, "×"),
      small("filter", state.filter, "weight"),
      h("span", { class: "operator" }, "="),
      small("terms", terms, ""),
    ),
    h(
      "p",
      { class: "total" },
      Array.from(terms, (_, r) => [
        r ? " + " : "",
        h("span", { class: r === row ? "here" : null }, `${signed(patch[r])}·${signed(state.filter[r])}`),
      ]).flat(),
      " ",
      h("strong", { "data-name": "total", "data-value": total }, `= ${short(total)}`),
    ),
  ];
}

function sandboxBackward(state, lowering, changed) {
  const { side } = state;
  let dcolumns, dx, product;
  const counts = Float32Array.from({ length: side * side }, (_, k) => lowering.readers(0, Math.floor(k / side), k % side).length);
  const compute = () => {
    dcolumns = multiply(matrix(lowering.rows, 1, state.filter), matrix(1, lowering.positions, state.dz));
    const kept = dcolumns.data.map((value, k) => (k % lowering.positions < state.added ? value : 0));
    dx = lowering.col2im(matrix(lowering.rows, lowering.positions, kept)).data;
  };
  compute();
  const point = (changes) => {
    Object.assign(state, { pixel: null }, changes);
    mark();
  };
  const pointPixel = (y, x) => {
    if (lowering.inside(y, x)) point({ pixel: [y, x] });
  };
  const dz = sandboxGrid({
    name: "dz",
    label: `dZ, ${times(lowering.oh, lowering.ow)}; type a number into the cell pointed at`,
    rows: lowering.oh,
    cols: lowering.ow,
    data: () => state.dz,
    point: (i, j) => point({ position: i * lowering.ow + j }),
    edit: (k, value) => {
      state.dz[k] = value;
      state.dzPreset = SANDBOX_OWN;
      refresh();
    },
    describe: "dZ",
  });
  const weights = sandboxWeights(
    state,
    lowering,
    (row) => point({ row }),
    () => refresh(),
  );
  const pads = lowering.sweep.pads;
  const gradient = sandboxGrid({
    name: "dx",
    label: `dX, ${times(side, side)}`,
    rows: side,
    cols: side,
    pads,
    data: () => dx,
    point: pointPixel,
    describe: "dX",
  });
  const overlaps = sandboxGrid({
    name: "counts",
    label: "How many entries of dcolumns are added at each pixel",
    rows: side,
    cols: side,
    pads,
    data: () => counts,
    point: pointPixel,
    describe: "entries",
  });
  const field = sandboxField("dZ", dz);
  const sum = h("p", { class: "total", "data-name": "sum" });
  const place = h("div", { class: "sandbox-product" });
  const shownOf = h("span", { class: "caption" });
  const slider = h("input", {
    type: "range",
    min: "0",
    max: String(lowering.positions),
    value: String(Math.min(state.added, lowering.positions)),
    "aria-label": "Positions added so far",
    oninput: () => {
      const added = Number(slider.value);
      Object.assign(state, { added, pixel: null, position: Math.max(0, added - 1) });
      refresh();
    },
  });
  const text = h("pre", { tabindex: "0", "data-name": "numbers" });
  function refresh() {
    compute();
    for (const grid of [dz, weights.grid, gradient, overlaps]) grid.recolour();
    product = sandboxProduct(place, {
      a: matrix(lowering.rows, 1, state.filter),
      b: matrix(1, lowering.positions, state.dz),
      c: dcolumns,
      names: { a: "Wᵀ", b: "dZ as a row", c: "dcolumns = Wᵀ · dZ" },
      grids: { a: "filter-column", b: "dz-row", c: "dcolumns" },
      point: ({ m, n }) => point({ ...(m === undefined ? {} : { row: m }), ...(n === undefined ? {} : { position: n }) }),
      lowering,
    });
    shownOf.textContent = `${Math.min(state.added, lowering.positions)} of ${lowering.positions} positions added`;
    text.textContent = sandboxText({
      dZ: matrix(lowering.oh, lowering.ow, state.dz),
      W: matrix(lowering.kh, lowering.kw, state.filter),
      "dcolumns = Wᵀ · dZ": dcolumns,
      "dX = col2im(dcolumns)": matrix(side, side, dx),
      "entries added at each pixel": matrix(side, side, counts),
    });
    changed();
    mark();
  }
  function mark() {
    const { position, row, pixel } = state;
    const [[top], [left]] = pads;
    const found = pixel ? lowering.readers(0, ...pixel) : [{ row, position }];
    const [, y, x] = pixel ? [0, ...pixel] : lowering.pixel(row, position);
    const target = cellMark([y + top, x + left], "cursor");
    for (const grid of [gradient, overlaps]) grid.mark([...(pixel ? [] : patchMarks(lowering, position)), target]);
    dz.mark(found.map((each) => cellMark(lowering.place(each.position), "result")));
    weights.grid.mark(found.map((each) => cellMark(lowering.tap(each.row).slice(1), "cursor")));
    sandboxMove(dz, lowering.place(position));
    sandboxMove(weights.grid, lowering.tap(row).slice(1));
    product.select(pixel ? {} : { m: row, k: 0, n: position });
    product.c.mark([
      ...(pixel ? [] : [{ rows: [0, lowering.rows], cols: [position, position + 1], role: "patch" }]),
      ...found.map((each) => cellMark([each.row, each.position], "cursor")),
    ]);
    sum.replaceChildren(...sandboxAdded(state, lowering, dcolumns, [y, x]));
    field.update();
    weights.field.update();
  }
  const element = h(
    "article",
    {},
    h(
      "div",
      { class: "maps" },
      mapFigure("dJ/dZ", "dZ", [dz, field], "result"),
      mapFigure("Filter", "W", [weights.grid, weights.field], "weight"),
      mapFigure("dJ/dX", "dX = col2im(dcolumns)", gradient, "patch"),
      mapFigure("Overlaps", "entries added at each pixel", overlaps),
    ),
    h(
      "div",
      { class: "tools" },
      h("label", {}, "col2im, position by position ", slider),
      shownOf,
      flowButton("The column returns", () => [
        product.c,
        gradient,
        sandboxMoves(lowering, state.position).map(([pixel, column]) => [column, pixel]),
      ]),
    ),
    sum,
    place,
    h("details", { class: "sandbox-text" }, h("summary", {}, "The numbers as text"), text),
  );
  return { element, refresh };
}

/** Return the sum that col2im makes at a pixel, as a line. */
function sandboxAdded(state, lowering, dcolumns, [y, x]) {
  if (!lowering.inside(y, x)) return ["This entry of dcolumns belongs to the padding: col2im drops it."];
  const found = lowering.readers(0, y, x).filter((each) => each.position < state.added);
  const values = found.map((each) => entry(dcolumns, each.row, each.position));
  const total = values.reduce((sum, value) => sum + value, 0);
  const terms = values.length
    ? values.map((value) => (value < 0 ? `(${short(value)})` : short(value))).join(" + ")
    : "nothing is added here";
  return [`dX at ${y}, ${x}: ${terms} `, h("strong", { "data-name": "total", "data-value": total }, `= ${short(total)}`)];
}

/** Return matrices as aligned text. */
function sandboxText(named) {
  const block = ([name, m]) => {
    const [rows, cols] = m.shape;
    const cells = Array.from(m.data.subarray(0, rows * cols), (value) => String(Number(value.toPrecision(4))));
    const wide = Math.max(...cells.map((cell) => cell.length));
    const lines = Array.from({ length: rows }, (_, r) =>
      cells
        .slice(r * cols, (r + 1) * cols)
        .map((cell) => cell.padStart(wide))
        .join(" "),
    );
    return `${name}   ${times(rows, cols)}\n${lines.join("\n")}`;
  };
  return Object.entries(named).map(block).join("\n\n");
}

function sandboxExplained(network) {
  return explain({
    equations: ["size", "conv", "dx"],
    note: [
      "Each position of the window is a column, and each tap of the filter a row: the filter as a row, times the columns, ",
      "gives all outputs at once. Backwards, col2im adds each entry of dcolumns where im2col had read it, so that pixels ",
      "under several windows get several terms.",
    ],
    codes: [
      ["the output size", network.code["output size"]],
      ["im2col", network.code.im2col],
      ["col2im", network.code.col2im],
    ],
  });
}
