// The ledger: the products of a training step as areas, the time they take, and the tree that adds up a batch's shards.

import { grouped, h, percent, short, svg, times } from "./dom.js";
import { explain } from "./explain.js";

const LEDGER_ROLES = {
  forward: {
    colour: "weight",
    factors: [
      ["W", "weight"],
      ["columns", "patch"],
      ["Z", "muted"],
    ],
  },
  dweight: {
    colour: "cursor",
    factors: [
      ["dZ", "muted"],
      ["columnsᵀ", "patch"],
      ["dW", "weight"],
    ],
  },
  dx: {
    colour: "patch",
    factors: [
      ["Wᵀ", "weight"],
      ["dZ", "muted"],
      ["dcolumns", "patch"],
    ],
  },
  dbias: {
    colour: "muted",
    factors: [
      ["dZ", "muted"],
      ["1", "line"],
      ["db", "weight"],
    ],
  },
  sum: {
    colour: "muted",
    factors: [
      ["X", "patch"],
      ["1", "line"],
      ["sums", "muted"],
    ],
  },
};

/** Show the view in an element; returns what ends it. */
export function ledgerView(store, element) {
  const { source, network } = store.state;
  let left = false;
  element.replaceChildren(h("h2", {}, "Ledger: what a training step costs"), h("p", { class: "waiting" }, "Measuring each layer …"));
  source
    .ledger()
    .then((ledger) => left || element.replaceChildren(...ledgerParts(ledger, network)))
    .catch(
      (error) =>
        left || element.replaceChildren(h("h2", {}, "Ledger"), h("p", { role: "alert", class: "training-failure" }, error.message)),
    );
  return () => (left = true);
}

function ledgerParts(ledger, network) {
  return [
    h("h2", {}, "Ledger: what a training step costs"),
    ledgerSummary(ledger),
    h(
      "div",
      { class: "ledger-columns" },
      h("section", {}, h("h3", {}, "Work and time"), ledgerBars(ledger)),
      h("section", { class: "products" }, h("h3", {}, "Every product, M × K × N"), ledgerTable(ledger)),
      h("section", {}, h("h3", {}, "The tree that adds up a batch"), ledgerTrees(ledger)),
    ),
    explain({
      equations: ["product", "tree"],
      shapes: [
        ["batch", `${ledger.batch_size} examples in shards of at most ${ledger.shard_size}`],
        ["shard", `${ledger.batch} examples: N = ${ledger.batch} · OH · OW in a convolution's products`],
      ],
      codes: [
        ["who adds which shards", network.code["shard tree"]],
        ["the product", network.code.affine],
      ],
    }),
  ];
}

const ledgerFlops = (row) => row.products.reduce((sum, product) => sum + product.flops, 0);
const ledgerSeconds = (row) => (row.forward_seconds ?? 0) + (row.backward_seconds ?? 0);

/** Return a total over rows. */
function ledgerTotal(rows, of) {
  return rows.reduce((sum, row) => sum + of(row), 0);
}

function ledgerBytes(bytes) {
  return bytes < 1e6 ? `${grouped(bytes / 1e3)} kB` : `${short(bytes / 1e6)} MB`;
}

function ledgerSummary({ rows, batch, peak }) {
  const flops = ledgerTotal(rows, ledgerFlops);
  const seconds = ledgerTotal(rows, ledgerSeconds);
  const fact = (value, name, key) => h("div", { "data-name": key }, h("dd", {}, value), h("dt", {}, name));
  return h(
    "dl",
    { class: "facts" },
    fact(`${short(flops / 1e6)} MFLOP`, `in the products of one step over ${batch} examples`, "flops"),
    fact(ledgerBytes(ledgerTotal(rows, (row) => row.bytes)), "of buffers", "bytes"),
    seconds ? fact(`${short(1e3 * seconds)} ms`, "on one core, measured here", "seconds") : null,
    peak ? fact(percent(flops / seconds / peak), `of what a large product reaches here, ${short(peak / 1e9)} GFLOP/s`, "share") : null,
    seconds ? null : fact("–", "not timed, because a training is under way: open the ledger again when it is at rest", "untimed"),
  );
}

/** Return for each layer its share of the work on the left and of the time on the right. */
function ledgerBars({ rows }) {
  const flops = ledgerTotal(rows, ledgerFlops) || 1;
  const seconds = ledgerTotal(rows, ledgerSeconds);
  const most = Math.max(...rows.map((row) => Math.max(ledgerFlops(row) / flops, seconds ? ledgerSeconds(row) / seconds : 0)));
  const piece = (share, role, title) => {
    const element = h("span", { class: `piece ${role}`, title });
    element.style.width = `${(100 * share) / most}%`;
    return element;
  };
  const lines = rows.map((row) => {
    const work = ledgerFlops(row);
    const spent = ledgerSeconds(row);
    return h(
      "tr",
      { "data-row": row.name },
      h("th", { scope: "row" }, row.name),
      h("td", { class: "share" }, work ? percent(work / flops) : "–"),
      h(
        "td",
        { class: "work" },
        h(
          "div",
          { class: "pieces" },
          row.products.map((p) =>
            piece(p.flops / flops, LEDGER_ROLES[p.role].colour, `${row.name}, ${p.role}: ${short(p.flops / 1e6)} MFLOP`),
          ),
        ),
      ),
      h(
        "td",
        { class: "time" },
        h(
          "div",
          { class: "pieces" },
          seconds
            ? [
                piece(row.forward_seconds / seconds, "forward", `${row.name}, forward: ${short(1e3 * row.forward_seconds)} ms`),
                piece(row.backward_seconds / seconds, "backward", `${row.name}, backward: ${short(1e3 * row.backward_seconds)} ms`),
              ]
            : null,
        ),
      ),
      h("td", { class: "share" }, seconds ? percent(spent / seconds) : "–"),
    );
  });
  const key = (role, text) => h("span", { class: "key" }, h("span", { class: `piece ${role}` }), text);
  const idle = seconds
    ? ledgerTotal(
        rows.filter((row) => !ledgerFlops(row)),
        ledgerSeconds,
      ) / seconds
    : 0;
  return h(
    "figure",
    { class: "ledger-figure" },
    h(
      "table",
      { class: "ledger-bars" },
      h(
        "colgroup",
        {},
        ["name", "amount", "bar", "bar", "amount"].map((kind) => h("col", { class: kind })),
      ),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("td", {}),
          h("th", { scope: "col", colspan: 2 }, "of the FLOPs"),
          h("th", { scope: "col", colspan: 2 }, "of the time"),
        ),
      ),
      h("tbody", {}, lines),
    ),
    h(
      "p",
      { class: "keys" },
      key("weight", "forward product"),
      key("cursor", "dW"),
      key("patch", "dX"),
      key("muted", "sums"),
      seconds ? [key("forward", "time forward"), key("backward", "time backward")] : null,
    ),
    rows.some((row) => row.share > 1)
      ? h(
          "p",
          { class: "caption" },
          "A layer above 100 % of the peak means that the machine was busy with something else while the peak was measured.",
        )
      : null,
    idle
      ? h(
          "p",
          { class: "caption" },
          `Layers without any product (–) take ${percent(idle)} of the time: they move numbers instead of multiplying them.`,
        )
      : null,
  );
}

function ledgerTable({ rows, peak }) {
  const products = rows.flatMap((row) => row.products);
  const longest = Math.max(2, ...products.flatMap(({ m, k, n }) => [m, k, n]));
  const most = Math.max(1, ...products.map((product) => product.flops));
  const timed = rows.some((row) => row.forward_seconds);
  const head = [
    "layer",
    timed && "forward",
    timed && "backward",
    peak && "of peak",
    "product",
    "C = A · B",
    "M × K × N",
    "MFLOP",
    "area ∝ FLOPs",
  ].filter(Boolean);
  const body = rows.flatMap((row) => {
    const span = Math.max(1, row.products.length);
    const cell = (text, more = {}) => h("td", { rowspan: span, ...more }, text);
    const milliseconds = (seconds) => cell(seconds ? `${short(1e3 * seconds)} ms` : "–");
    const own = [
      h(
        "th",
        { scope: "rowgroup", rowspan: span },
        row.name,
        h("span", { class: "caption" }, times(row.output_shape)),
        row.parameters ? h("span", { class: "caption" }, `${grouped(row.parameters)} parameters`) : null,
        h("span", { class: "caption" }, row.bytes ? `${ledgerBytes(row.bytes)} of buffers` : "no buffers"),
      ),
      ...(timed ? [milliseconds(row.forward_seconds), milliseconds(row.backward_seconds)] : []),
      ...(peak ? [cell(row.share ? percent(row.share) : "–")] : []),
    ];
    const lines = row.products.length ? row.products : [null];
    return lines.map((product, k) => h("tr", { class: k ? null : "first" }, k ? null : own, ledgerProduct(product, longest, most)));
  });
  return h(
    "figure",
    {},
    h(
      "figcaption",
      {},
      "The sides of A (M × K), B (K × N) and C (M × N) are drawn on a logarithmic scale, since M may be 8 and N 18,432. ",
      "The areas of the squares on the right are to scale. Pink has the shape of the weights, green that of the columns (in ",
      "a dense layer, of its input), grey that of the output.",
    ),
    h(
      "div",
      { class: "ledger-scroll", tabindex: "0", role: "region", "aria-label": "Table of all products" },
      h(
        "table",
        { class: "ledger-table" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            head.map((name) => h("th", { scope: "col", class: name === "product" ? "role" : null }, name)),
          ),
        ),
        h("tbody", {}, body),
      ),
    ),
  );
}

function ledgerProduct(product, longest, most) {
  if (!product) return [h("td", { class: "none", colspan: 5 }, "no product: numbers are moved, compared or scaled")];
  const { role, m, k, n, count, flops } = product;
  const side = 44 * Math.sqrt(flops / most);
  const square = svg(
    "svg",
    {
      width: 46,
      height: Math.max(10, Math.ceil(side) + 2),
      class: `ledger-area ${LEDGER_ROLES[role].colour}`,
      role: "img",
      "aria-label": `${short(flops / 1e6)} MFLOP`,
    },
    svg("rect", { x: 1, y: 1, width: Math.max(0.5, side), height: Math.max(0.5, side) }),
  );
  return [
    h("td", { class: "role" }, role, h("span", { class: "caption" }, ledgerWords(role))),
    h("td", {}, ledgerPicture(product, longest)),
    h("td", {}, `${count > 1 ? `${count} · ` : ""}${[m, k, n].map(grouped).join(" × ")}`),
    h("td", {}, short(flops / 1e6)),
    h("td", { class: "area" }, square),
  ];
}

function ledgerWords(role) {
  const [a, b, c] = LEDGER_ROLES[role].factors.map(([name]) => name);
  return `${c} = ${a} · ${b}`;
}

/** Return A left of C and B above C, their sides on a logarithmic scale. */
function ledgerPicture({ role, m, k, n }, longest) {
  const length = (size) => 3 + (43 * Math.log(size)) / Math.log(longest);
  const [high, inner, wide] = [length(m), length(k), length(n)];
  const gap = 3;
  const box = ([name, colour], x, y, width, height) => [
    svg("rect", { class: `piece-fill ${colour}`, x, y, width, height }),
    width > 6 * name.length + 4 && height > 11
      ? svg("text", { x: x + width / 2, y: y + height / 2 + 3.5, "text-anchor": "middle" }, name)
      : null,
  ];
  const [a, b, c] = LEDGER_ROLES[role].factors;
  const words = `${ledgerWords(role)}: A ${m} by ${k}, B ${k} by ${n}, C ${m} by ${n}`;
  return svg(
    "svg",
    { class: "ledger-picture", width: inner + wide + gap + 2, height: inner + high + gap + 2, role: "img", "aria-label": words },
    svg("title", {}, words),
    box(a, 1, inner + gap + 1, inner, high),
    box(b, inner + gap + 1, 1, wide, inner),
    box(c, inner + gap + 1, inner + gap + 1, wide, high),
  );
}

/** A node of the tree that adds up shards: its range of shards, and which workers add there. */
function ledgerNode(from, to, workers) {
  const node = { from, to, workers: workers.slice(0, 1), parts: [] };
  if (to - from === 1) return node;
  const middle = from + Math.ceil((to - from) / 2);
  const half = Math.ceil(workers.length / 2);
  const crews = workers.length > 1 ? [workers.slice(0, half), workers.slice(half)] : [workers, workers];
  node.parts = [ledgerNode(from, middle, crews[0]), ledgerNode(middle, to, crews[1])];
  if (workers.length > 1) node.workers = null; // all workers of the rank, each in its slice of the gradient
  return node;
}

function ledgerTrees({ batch_size: batch, shard_size: size, tree }) {
  const place = h("div", { class: "trees" });
  const sums = h("div", {});
  const own = Math.ceil(batch / size);
  const counts = [...new Set([own, 2, 3, 4, 5, 8, 16])].sort((a, b) => a - b);
  const start = own < 4 ? 8 : own;
  const select = h(
    "select",
    { "aria-label": "Shards of the batch", onchange: () => draw(Number(select.value)) },
    counts.map((count) =>
      h(
        "option",
        { value: count, selected: count === start },
        `${count} shard${count === 1 ? "" : "s"} (${count === own ? `this training: ${batch}` : `up to ${count * size}`} examples)`,
      ),
    ),
  );
  const draw = (shards) => {
    place.replaceChildren(...tree.map(({ workers }) => ledgerTree(shards, workers)));
    sums.replaceChildren(ledgerBits(shards));
  };
  draw(start);
  return h(
    "figure",
    { class: "ledger-figure", "data-name": "tree" },
    h(
      "p",
      {},
      "Adding floating-point numbers in another order gives other bits. So a tree that depends only on the number of shards ",
      "says what is added to what. Workers share the work, not the order: the three trees have the same edges.",
    ),
    h("div", { class: "tools" }, h("label", {}, "A batch of ", select)),
    place,
    sums,
  );
}

/** Return the tree of a batch, each node in the colours of the workers that add there. */
function ledgerTree(shards, workers) {
  const root = ledgerTreeOf(shards, workers);
  const step = Math.max(20, Math.min(40, 300 / shards));
  const depth = (node) => (node.parts.length ? 1 + Math.max(...node.parts.map(depth)) : 0);
  const levels = depth(root);
  const [rise, radius] = [44, Math.min(11, step / 2 - 2)];
  const x = (node) => (node.parts.length ? (x(node.parts[0]) + x(node.parts[1])) / 2 : (node.from + 0.5) * step);
  const y = (node) => 16 + (levels - depth(node)) * rise;
  const leafY = 16 + levels * rise;
  const edges = [];
  const nodes = [];
  const walk = (node) => {
    const bottom = node.parts.length ? y(node) : leafY;
    for (const part of node.parts) {
      edges.push(svg("line", { class: "tree-edge", x1: x(node), y1: bottom, x2: x(part), y2: part.parts.length ? y(part) : leafY }));
      walk(part);
    }
    nodes.push(...(node.workers ? ledgerOne(node, x(node), bottom, radius) : ledgerAll(workers, x(node), bottom, radius)));
  };
  walk(root);
  const width = Math.max(shards * step, 120);
  const dealt = ledgerDealt(root, workers);
  const brackets = dealt.shards.flatMap((own, k) =>
    own.length ? ledgerBracket(k, own[0] * step + 3, (own.at(-1) + 1) * step - 3, leafY + radius + 6) : [],
  );
  const key = dealt.shards.map((own, k) =>
    h("span", { class: `key w${k}` }, h("span", { class: "piece" }), `worker ${k}${own.length ? "" : ", idle"}`),
  );
  return h(
    "figure",
    { class: "tree", "data-workers": workers, "data-dealt": JSON.stringify(dealt) },
    h("figcaption", {}, h("strong", {}, `${workers} worker${workers === 1 ? "" : "s"}`)),
    h(
      "div",
      { class: "ledger-scroll" },
      svg(
        "svg",
        { width, height: leafY + radius + 26, role: "img", "aria-label": `The tree of ${shards} shards, added by ${workers} workers` },
        edges,
        nodes,
        brackets,
      ),
    ),
    h(
      "p",
      { class: "keys" },
      key,
      workers > 1 && shards > 1 ? h("span", { class: "key" }, "several colours: each worker adds its slice of the vector") : null,
    ),
  );
}

/** Return which shards each worker has, and the sums (into, from) between workers, as the package deals them. */
function ledgerDealt(root, workers) {
  const shards = Array.from({ length: workers }, () => []);
  const sums = [];
  const first = (node) => (node.workers ? node.workers[0] : first(node.parts[0]));
  const walk = (node) => {
    node.parts.forEach(walk);
    if (!node.parts.length) shards[node.workers[0]].push(node.from);
    if (!node.workers) sums.push(node.parts.map(first));
  };
  walk(root);
  return { shards, sums };
}

function ledgerBracket(worker, left, right, y) {
  return [
    svg("line", { class: `tree-bracket w${worker}`, x1: left, x2: right, y1: y, y2: y }),
    svg(
      "text",
      { class: "chart-text", x: (left + right) / 2, y: y + 14, "text-anchor": "middle" },
      right - left > 60 ? `worker ${worker}` : `w${worker}`,
    ),
  ];
}

function ledgerOne(node, x, y, radius) {
  const [worker] = node.workers;
  const shape = node.parts.length
    ? svg("circle", { class: `tree-node w${worker}`, cx: x, cy: y, r: radius })
    : svg("rect", { class: `tree-node w${worker}`, x: x - radius, y: y - radius, width: 2 * radius, height: 2 * radius, rx: 2 });
  const title = node.parts.length
    ? `worker ${worker} adds shards ${node.from} to ${node.to - 1}`
    : `worker ${worker} computes the gradient of shard ${node.from}`;
  return [
    svg(
      "g",
      {},
      svg("title", {}, title),
      shape,
      svg("text", { class: "tree-text", x, y: y + 4, "text-anchor": "middle" }, node.parts.length ? "+" : String(node.from)),
    ),
  ];
}

/** Return a node that is a strip of as many colours as there are workers. */
function ledgerAll(workers, x, y, radius) {
  const width = (4 * radius) / workers;
  const strip = Array.from({ length: workers }, (_, k) =>
    svg("rect", { class: `tree-node w${k}`, x: x - 2 * radius + k * width, y: y - radius, width, height: 2 * radius }),
  );
  return [svg("g", {}, svg("title", {}, `${workers} workers add, each its slice of the vector`), strip)];
}

/** Return the tree of a number of shards that some workers add up. */
function ledgerTreeOf(shards, workers) {
  return ledgerNode(0, shards, Array.from(Array(workers).keys()));
}

/** Return random numbers' sums in float32, [how they were added, sum]: by the tree, and in some orders of arrival. */
function ledgerSums(shards) {
  const numbers = Float32Array.from({ length: shards }, () => (Math.random() - 0.5) * 2 ** (Math.random() * 8));
  const sum = (node) => (node.parts.length ? Math.fround(sum(node.parts[0]) + sum(node.parts[1])) : numbers[node.from]);
  const byTree = [1, 2, 4].map((workers) => [
    `by the tree, ${workers} worker${workers === 1 ? "" : "s"}`,
    sum(ledgerTreeOf(shards, workers)),
  ]);
  const arrivals = Array.from(Array(3), () => {
    const order = Array.from(numbers.keys()).sort(() => Math.random() - 0.5);
    const first = order.slice(0, 8).join(", ");
    return [`as they arrive: ${first}${shards > 8 ? ", …" : ""}`, order.reduce((total, k) => Math.fround(total + numbers[k]), 0)];
  });
  return [...byTree, ...arrivals];
}

/** Return a demonstration: numbers, one for each shard, whose sum depends on the order, unless there are two of them. */
function ledgerBits(shards) {
  const body = h("tbody", {});
  const bits = (value) => `0x${new Uint32Array(Float32Array.of(value).buffer)[0].toString(16).padStart(8, "0")}`;
  const draw = () => {
    let sums = ledgerSums(shards);
    for (let k = 0; k < 100 && sums.every(([, value]) => value === sums[0][1]); k++) sums = ledgerSums(shards);
    const lines = sums.map(([name, value]) => {
      const same = value === sums[0][1];
      const cells = [name, value.toPrecision(9).replace("-", "−"), bits(value), same ? "same bits" : "other bits"];
      return h(
        "tr",
        { class: same ? "same" : "other" },
        cells.map((cell) => h("td", {}, cell)),
      );
    });
    body.replaceChildren(...lines);
  };
  draw();
  return h(
    "div",
    { class: "bits", "data-name": "bits" },
    h(
      "div",
      { class: "tools" },
      h("button", { type: "button", onclick: draw }, "Other numbers, other arrivals"),
      h("span", { class: "caption" }, "One float32 number of the gradient, one term for each shard"),
    ),
    h("div", { class: "ledger-scroll", tabindex: "0", role: "region", "aria-label": "Sums in different orders" }, h("table", {}, body)),
  );
}
