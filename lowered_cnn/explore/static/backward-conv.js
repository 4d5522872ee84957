// A convolution, backward: dZ arrives, and becomes dW, db and dX, one step after another.

import { entry, largest, strongest, transpose } from "./arrays.js";
import { ConvolutionGradients } from "./backward-matrices.js";
import {
  backwardRoom,
  backwardTable,
  besidePackage,
  largestOf,
  namedGrid,
  namedNumber,
  precise,
  remembered,
  stepPath,
  TermStrips,
} from "./backward-parts.js";
import { readingsStep } from "./backward-readings.js";
import { sgdStep } from "./backward-sgd.js";
import { h, short, stepper, times } from "./dom.js";
import { explain } from "./explain.js";
import { cellMark } from "./grid.js";
import { heatOf, legend, mapFigure } from "./maps.js";
import { Product } from "./product.js";

/** Return the view of a convolution, backward. */
export function backwardConvolution(store, stage) {
  const { network, trace } = store.state;
  const chosen = remembered(store, `backward ${stage.name}`, { step: 0, filter: 0, channel: 0, reading: "col2im" });
  const article = h("article", {});
  const show = () => {
    const gradients = new ConvolutionGradients({ network, trace, stage, filter: chosen.filter });
    if (chosen.row === undefined) Object.assign(chosen, strongestTerm(gradients, chosen.filter - gradients.start));
    const view = { store, stage, chosen, gradients, rebuild: (changes) => (Object.assign(chosen, changes), show()) };
    const path = stepPath(chosen, [
      { title: "dZ arrives", build: () => arrival(view) },
      { title: "dW = dZ · columnsᵀ", build: () => weightStep(view) },
      { title: gradients.packageDbias ? "db = sums of rows" : "no bias, no db", build: () => biasStep(view) },
      { title: "dcolumns = Wᵀ · dZ", build: () => columnsStep(view) },
      { title: "dX: back into the image", build: () => readingsStep(view) },
      { title: "one step of SGD", build: () => sgdStep(store, stage, chosen.channel) },
    ]);
    article.replaceChildren(h("h2", {}, `${stage.name}: what flows back through a convolution`), path.element);
    path.show();
  };
  show();
  return article;
}

/** Return the tap whose weight of a filter has the largest gradient, and the position that adds most to it. */
function strongestTerm({ dweight, dz, conv, lowering }, k) {
  const { rows, positions } = lowering;
  const row = strongest(dweight.data.subarray(k * rows, (k + 1) * rows));
  const position = strongest(Float32Array.from({ length: positions }, (_, p) => entry(dz, k, p) * entry(conv.columns, row, p)));
  return { row, position };
}

/** Return the stepper that chooses a filter. */
function backwardFilters({ stage, chosen, rebuild }) {
  return stepper({ label: "Filter", count: stage.output_shape[0], value: chosen.filter, change: (filter) => rebuild({ filter }) }).element;
}

/** Return a grid of row k of dZ as a map; point(position) is called. */
function dzGrid({ gradients, stage }, k, { name, point, side = 300 }) {
  const { lowering, dz, start } = gradients;
  const at = (i, j) => entry(dz, k(), i * lowering.ow + j);
  return namedGrid({
    name,
    rows: lowering.oh,
    cols: lowering.ow,
    value: at,
    magnitude: largest(dz.data),
    label: `dZ of ${stage.name}, filter ${start + k()}`,
    point: point && ((i, j) => point(i * lowering.ow + j)),
    describe: (i, j) => `dZ at ${i}, ${j}: ${short(at(i, j))}`,
    width: side,
  });
}

function arrival(view) {
  const { stage, chosen, gradients } = view;
  const { dz, start, lowering } = gradients;
  const k = chosen.filter - start;
  const line = h("p", { class: "total" });
  const point = (position) => {
    const [i, j] = lowering.place(position);
    chosen.position = position;
    grid.mark([cellMark([i, j], "result")]);
    line.replaceChildren(
      `dZ[${chosen.filter}, ${i}, ${j}] = `,
      namedNumber("dz", entry(dz, k, position)),
      `: add a small h to this output, and J changes by ${short(entry(dz, k, position))} · h.`,
    );
  };
  const grid = dzGrid(view, () => k, { name: "dz", side: 400, point });
  point(chosen.position);
  const none = Array.from({ length: lowering.positions }, (_, p) => entry(dz, k, p)).filter((value) => value === 0).length;
  return [
    h(
      "p",
      {},
      "The stage after this one hands back dJ/dZ: for each output of each filter, how much J changes if that output ",
      "does. Everything else follows from it.",
    ),
    h("div", { class: "tools" }, backwardFilters(view), legend(largest(dz.data), "dZ")),
    h("div", { class: "maps" }, mapFigure("dZ", `of filter ${chosen.filter}, ${times(lowering.oh, lowering.ow)}`, grid)),
    line,
    h(
      "p",
      { class: "caption" },
      `${none} of ${lowering.positions} are exactly 0: a maximum or a ReLU did not pass these outputs on, so they do not affect J.`,
    ),
    explain({
      equations: ["product"],
      shapes: [["dZ", `K × OH × OW = ${times(stage.output_shape)}`]],
      codes: [[`${stage.kind}, backward`, stage.code.backward]],
    }),
  ];
}

function weightStep(view) {
  const { store, stage, chosen, gradients, rebuild } = view;
  const { conv, lowering, dz, columnsT, dweight, packageDweight, start, first } = gradients;
  const x = (p) => entry(conv.columns, chosen.row, p);
  const d = (p) => entry(dz, local(), p);
  const local = () => chosen.filter - start;
  const tapText = (row) => {
    const [c, a, b] = lowering.tap(row);
    return `c = ${first + c}, a = ${a}, b = ${b}`;
  };
  const pick = (changes) => {
    Object.assign(chosen, changes);
    draw();
  };
  const map = (name, value, label, colours) =>
    namedGrid({
      name,
      rows: lowering.oh,
      cols: lowering.ow,
      value: (i, j) => value(i * lowering.ow + j),
      ...colours,
      label,
      point: (i, j) => pick({ position: i * lowering.ow + j }),
      describe: (i, j) => `${label} at ${i}, ${j}: ${short(value(i * lowering.ow + j))}`,
      width: 172,
    });
  const maps = [
    map("dweight-dz", d, "dZ", { magnitude: largest(dz.data) }),
    map("dweight-x", x, "X under the tap", { heat: heatOf(conv.x) }),
    map("dweight-terms", (p) => d(p) * x(p), "their product", { magnitude: largest(dz.data) * largest(conv.x.data) }),
  ];
  const channelOf = () => lowering.tap(chosen.row)[0];
  const filter = namedGrid({
    name: "dweight",
    rows: lowering.kh,
    cols: lowering.kw,
    value: (a, b) => entry(dweight, local(), lowering.row(channelOf(), a, b)),
    magnitude: largest(dweight.data),
    label: "dW of the filter",
    point: (a, b) => pick({ row: lowering.row(channelOf(), a, b) }),
    describe: (a, b) => `dW at ${a}, ${b}: ${short(entry(dweight, local(), lowering.row(channelOf(), a, b)))}`,
    width: 172,
  });
  const channels = stepper({
    label: "Channel",
    count: lowering.channels,
    value: channelOf(),
    name: (c) => String(first + c),
    change: (c) => pick({ row: lowering.row(c, ...lowering.tap(chosen.row).slice(1)) }),
  });
  const filters = stepper({
    label: "Filter",
    count: stage.output_shape[0],
    value: chosen.filter,
    change: (k) => (k >= start && k < start + gradients.filters ? pick({ filter: k }) : rebuild({ filter: k })),
  });
  const captions = [h("span", {}), h("span", {}), h("span", {})];
  const result = h("div", { class: "outcome" });
  const byNumber = h(
    "div",
    { class: "weighed" },
    h(
      "div",
      { class: "maps" },
      mapFigure("dZ", captions[0], maps[0], "weight"),
      mapFigure("X under tap", captions[1], maps[1], "patch"),
      mapFigure("Product", captions[2], maps[2]),
      mapFigure("dW", "the sums, by tap", filter),
    ),
    result,
  );
  const product = new Product({
    a: dz,
    b: columnsT,
    c: dweight,
    names: { a: "dZ", b: "im2col(X)ᵀ", c: "dW" },
    point: ({ m, k, n }) =>
      pick({ filter: m === undefined ? chosen.filter : start + m, position: k ?? chosen.position, row: n ?? chosen.row }),
    describe: {
      a: (k, p) => `dZ of filter ${start + k} at ${lowering.place(p).join(", ")}: ${short(entry(dz, k, p))}`,
      b: (p, row) => `X under tap ${tapText(row)} of the window at ${lowering.place(p).join(", ")}: ${short(entry(columnsT, p, row))}`,
      c: (k, row) => `dW of filter ${start + k}, ${tapText(row)}: ${short(entry(dweight, k, row))}`,
    },
    corner: byNumber,
    width: backwardRoom(),
  });
  function draw() {
    const { position, row } = chosen;
    const [c, a, b] = lowering.tap(row);
    const [i, j] = lowering.place(position);
    chosen.channel = c;
    channels.set(c);
    filters.set(chosen.filter);
    for (const each of [...maps, filter]) each.draw();
    for (const each of maps) each.mark([cellMark([i, j], "cursor")]);
    filter.mark([cellMark([a, b], "result")]);
    product.select({ m: local(), k: position, n: row });
    captions[0].textContent = `[${chosen.filter}]`;
    captions[1].textContent = `${first + c}, ${a}, ${b}`;
    captions[2].textContent = `at ${i}, ${j}: ${short(d(position) * x(position))}`;
    result.replaceChildren(...outcome(row));
  }
  function outcome(row) {
    const [c, a, b] = lowering.tap(row);
    let nonzero = 0;
    for (let p = 0; p < lowering.positions; p++) if (d(p) * x(p) !== 0) nonzero++;
    const [page, own] = [entry(dweight, local(), row), entry(packageDweight, local(), row)];
    return [
      h(
        "p",
        { class: "total" },
        `dW[${chosen.filter}, ${first + c}, ${a}, ${b}] = the sum of ${lowering.positions} products, ${nonzero} of them not 0, = `,
        h("strong", {}, precise(page)),
      ),
      besidePackage("dweight", page, own, largest(dweight.data)),
    ];
  }
  draw();
  return [
    h(
      "p",
      {},
      "A weight was multiplied by one pixel for each position of the window. So its gradient is a sum over all ",
      "positions: the pixel under its tap, times what arrives there. Point at a weight of dW.",
    ),
    h("div", { class: "tools" }, filters.element, channels.element, legend(largest(dweight.data), "dW")),
    product.element,
    explain({
      equations: ["dweight"],
      shapes: [
        ["dZ", `K × OH OW = ${times(dz.shape)}`],
        ["columnsᵀ", `OH OW × C KH KW = ${times(columnsT.shape)}`],
        ["dW", `K × C KH KW = ${times(dweight.shape)}`],
      ],
      codes: [
        ["The product A Bᵀ", store.state.network.code.dweight],
        [`${stage.kind}, backward`, stage.code.backward],
      ],
    }),
  ];
}

function biasStep(view) {
  const { store, stage, chosen, gradients } = view;
  const { dz, start, filters, packageDbias } = gradients;
  if (!packageDbias) return [h("p", {}, `${stage.name} has no bias, so there is nothing to sum here.`)];
  const k = chosen.filter - start;
  const scale = largestOf(filters, (f) => gradients.dbias(f));
  const rows = Array.from({ length: filters }, (_, f) => [String(start + f), precise(gradients.dbias(f)), precise(packageDbias[f])]);
  return [
    h(
      "p",
      {},
      "The bias was added at every position of its filter's output, so it gets the sum of all that arrives there: of ",
      "one row of dZ, which is this map.",
    ),
    h("div", { class: "tools" }, backwardFilters(view), legend(largest(dz.data), "dZ")),
    h(
      "div",
      { class: "maps" },
      mapFigure(
        "dZ",
        `[${chosen.filter}]`,
        dzGrid(view, () => k, { name: "dbias-dz" }),
      ),
    ),
    h(
      "p",
      { class: "total" },
      `db[${chosen.filter}] = the sum of these ${dz.shape[1]} numbers = `,
      h("strong", {}, precise(gradients.dbias(k))),
    ),
    besidePackage("dbias", gradients.dbias(k), packageDbias[k], scale),
    h("details", {}, h("summary", {}, "All filters"), backwardTable(["filter", "this page", "the package"], rows)),
    explain({
      equations: ["dbias"],
      shapes: [
        ["dZ", `K × OH OW = ${times(dz.shape)}`],
        ["db", `K = ${filters}`],
      ],
      codes: [["Sums of rows", store.state.network.code.dbias]],
    }),
  ];
}

function columnsStep(view) {
  const { store, stage, chosen, gradients } = view;
  const { conv, lowering, dz, dcolumns, start, first, filters } = gradients;
  const weightT = transpose(conv.weight);
  let term;
  const w = (k) => entry(conv.weight, k, chosen.row);
  const d = (k) => entry(dz, k, chosen.position);
  const pick = (changes) => {
    Object.assign(chosen, changes);
    draw();
  };
  const tapText = (row) => {
    const [c, a, b] = lowering.tap(row);
    return `${first + c}, ${a}, ${b}`;
  };
  const product = new Product({
    a: weightT,
    b: dz,
    c: dcolumns,
    names: { a: "Wᵀ", b: "dZ", c: "dcolumns" },
    point: ({ m, k, n }) => {
      term = k;
      pick({ row: m ?? chosen.row, position: n ?? chosen.position });
    },
    describe: {
      a: (row, k) => `W of filter ${start + k}, tap ${tapText(row)}: ${short(entry(weightT, row, k))}`,
      b: (k, p) => `dZ of filter ${start + k} at ${lowering.place(p).join(", ")}: ${short(entry(dz, k, p))}`,
      c: (row, p) => `dcolumns of tap ${tapText(row)} at ${lowering.place(p).join(", ")}: ${short(entry(dcolumns, row, p))}`,
    },
    width: backwardRoom(),
  });
  const strips = new TermStrips({
    name: "dcolumns",
    count: filters,
    parts: [
      { title: "W", role: "weight", value: w, most: largest(conv.weight.data) },
      { title: "dZ", role: "patch", value: d, most: largest(dz.data) },
      { title: "product", role: "", value: (k) => w(k) * d(k), most: largest(conv.weight.data) * largest(dz.data) },
    ],
    point: (k) => {
      term = k;
      draw();
    },
    describe: (k) => `filter ${start + k}: ${short(w(k))} × ${short(d(k))} = ${short(w(k) * d(k))}`,
  });
  const total = h("p", { class: "total" });
  function draw() {
    const { row, position } = chosen;
    product.select({ m: row, k: term, n: position });
    strips.draw(term);
    const one = term === undefined ? "" : `filter ${start + term}: ${short(w(term))} × ${short(d(term))} = ${short(w(term) * d(term))}; `;
    total.replaceChildren(
      `${one}dcolumns[(${tapText(row)}), (${lowering.place(position).join(", ")})] = the sum over ${filters} filters = `,
      h("strong", {}, namedNumber("dcolumns-page", entry(dcolumns, row, position))),
    );
  }
  draw();
  return [
    h(
      "p",
      {},
      "Each entry of the columns met every filter once. So what it gets back is a sum over the filters: the weight it ",
      "met, times what arrives at that position. Forward it was W · columns; backward it is Wᵀ · dZ, as in any product ",
      "of matrices.",
    ),
    h("div", { class: "tools" }, legend(largest(dcolumns.data), "dcolumns")),
    product.element,
    h("h3", {}, "Number by number, over the filters"),
    strips.element,
    total,
    h("p", { class: "caption" }, "The package does not keep these columns: it adds them into the image at once, which is the next step."),
    explain({
      equations: ["dcolumns"],
      shapes: [
        ["Wᵀ", `C KH KW × K = ${times(weightT.shape)}`],
        ["dZ", `K × OH OW = ${times(dz.shape)}`],
        ["dcolumns", `C KH KW × OH OW = ${times(dcolumns.shape)}, as im2col(X)`],
      ],
      codes: [
        ["The product Aᵀ B", store.state.network.code.dx],
        [`${stage.kind}, backward`, stage.code.backward],
      ],
    }),
  ];
}
