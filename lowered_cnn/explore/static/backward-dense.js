// A dense layer, backward: an outer product for its weights, and a product with W^T for its input.

import { entry, largest, matrix, multiply, strongest, transpose } from "./arrays.js";
import { backwardRoom, backwardTable, besidePackage, namedNumber, precise, remembered, stepPath, TermStrips } from "./backward-parts.js";
import { sgdStep } from "./backward-sgd.js";
import { h, short, times } from "./dom.js";
import { explain } from "./explain.js";
import { legend } from "./maps.js";
import { Product } from "./product.js";
import { gradientOf, inputGradientOf, inputOf, parameterOf } from "./source.js";

/** Return the view of a dense layer, backward. */
export function backwardDense(store, stage) {
  const { network, trace } = store.state;
  const [outputs, inputs] = [stage.output_shape[0], stage.input_shape[0]];
  const view = {
    store,
    stage,
    outputs,
    inputs,
    chosen: remembered(store, `backward ${stage.name}`, { step: 0, k: undefined, m: undefined }),
    dz: matrix(outputs, 1, gradientOf(trace, stage.name).data),
    a: matrix(inputs, 1, inputOf(trace, stage.name).data),
    weight: matrix(outputs, inputs, parameterOf(network.weights, stage, "weight").data),
    packageDweight: matrix(outputs, inputs, parameterOf(trace.gradients, stage, "weight").data),
    packageDbias: parameterOf(trace.gradients, stage, "bias"),
    packageDx: inputGradientOf(trace, stage.name),
  };
  view.chosen.k ??= strongest(view.dz.data);
  view.chosen.m ??= strongest(view.a.data);
  const path = stepPath(view.chosen, [
    { title: "dW = dZ · Aᵀ", build: () => denseWeightStep(view) },
    { title: "db = dZ", build: () => denseBiasStep(view) },
    { title: "dA = Wᵀ · dZ", build: () => denseInputStep(view) },
    { title: "one step of SGD", build: () => sgdStep(store, stage) },
  ]);
  path.show();
  return h("article", {}, h("h2", {}, `${stage.name}: what flows back through a dense layer`), path.element);
}

function denseCodes({ store, stage }, title, name) {
  return [
    [title, store.state.network.code[name]],
    [`${stage.kind}, backward`, stage.code.backward],
  ];
}

function denseWeightStep(view) {
  const { chosen, dz, a, packageDweight, outputs, inputs } = view;
  const dweight = multiply(dz, transpose(a));
  const result = h("div", {});
  const product = new Product({
    a: dz,
    b: transpose(a),
    c: dweight,
    names: { a: "dZ", b: "Aᵀ", c: "dW = dZ · Aᵀ" },
    point: ({ m, n }) => {
      Object.assign(chosen, { k: m ?? chosen.k, m: n ?? chosen.m });
      draw();
    },
    describe: { c: (k, m) => `dW at ${k}, ${m}: ${short(entry(dweight, k, m))}` },
    width: backwardRoom(),
  });
  function draw() {
    const { k, m } = chosen;
    product.select({ m: k, n: m });
    result.replaceChildren(
      h(
        "p",
        { class: "total" },
        `dW[${k}, ${m}] = dZ[${k}] × A[${m}] = ${short(dz.data[k])} × ${short(a.data[m])} = `,
        h("strong", {}, precise(entry(dweight, k, m))),
      ),
      besidePackage("dweight", entry(dweight, k, m), entry(packageDweight, k, m), largest(dweight.data)),
    );
  }
  draw();
  return [
    h(
      "p",
      {},
      "For one image, A and dZ are single columns, so dW is an outer product: every output's gradient times every ",
      "input. For a batch, the same product sums over its images. A weight whose input is 0 does not move.",
    ),
    h("div", { class: "tools" }, legend(largest(dweight.data), "dW")),
    product.element,
    result,
    explain({
      equations: ["ddense"],
      shapes: [
        ["dZ", times(outputs, 1)],
        ["A", times(inputs, 1)],
        ["dW", times(outputs, inputs)],
      ],
      codes: denseCodes(view, "The product A Bᵀ", "dweight"),
    }),
  ];
}

function denseBiasStep(view) {
  const { dz, packageDbias, chosen } = view;
  if (!packageDbias) return [h("p", {}, `${view.stage.name} has no bias.`)];
  const scale = largest(packageDbias.data);
  const rows = Array.from(dz.data, (value, k) => [String(k), precise(value), precise(packageDbias.data[k])]);
  return [
    h("p", {}, "The bias is added once to each output, so it gets what arrives there. (For a batch: the sum over its images.)"),
    h("p", { class: "total" }, `db[${chosen.k}] = dZ[${chosen.k}]`),
    besidePackage("dbias", dz.data[chosen.k], packageDbias.data[chosen.k], scale),
    h(
      "div",
      { class: "scroll short", tabindex: "0", role: "group", "aria-label": "All outputs" },
      backwardTable(["output", "dZ", "db in the package"], rows),
    ),
    explain({ equations: ["ddense_bias"], shapes: [["db", String(dz.data.length)]], codes: denseCodes(view, "Sums of rows", "dbias") }),
  ];
}

function denseInputStep(view) {
  const { chosen, dz, weight, packageDx, outputs, inputs } = view;
  const weightT = transpose(weight);
  const da = multiply(weightT, dz);
  const w = (k) => entry(weight, k, chosen.m);
  const result = h("div", {});
  const point = (changes) => {
    Object.assign(chosen, changes);
    draw();
  };
  const product = new Product({
    a: weightT,
    b: dz,
    c: da,
    names: { a: "Wᵀ", b: "dZ", c: "dA" },
    point: ({ m, k }) => point({ m: m ?? chosen.m, k: k ?? chosen.k }),
    describe: { c: (m) => `dA at ${m}: ${short(da.data[m])}` },
    width: backwardRoom(),
  });
  const strips = new TermStrips({
    name: "dinput",
    count: outputs,
    parts: [
      { title: "W", role: "weight", value: w, most: largest(weight.data) },
      { title: "dZ", role: "patch", value: (k) => dz.data[k], most: largest(dz.data) },
      { title: "product", role: "", value: (k) => w(k) * dz.data[k], most: largest(weight.data) * largest(dz.data) },
    ],
    point: (k) => point({ k }),
    describe: (k) => `output ${k}: ${short(w(k))} × ${short(dz.data[k])} = ${short(w(k) * dz.data[k])}`,
  });
  function draw() {
    const { k, m } = chosen;
    product.select({ m, k, n: 0 });
    strips.draw(k);
    result.replaceChildren(
      h(
        "p",
        { class: "total" },
        `output ${k}: ${short(w(k))} × ${short(dz.data[k])} = ${short(w(k) * dz.data[k])}; dA[${m}] = the sum over ${outputs} outputs = `,
        h("strong", {}, namedNumber("dinput", da.data[m])),
      ),
      besidePackage("dx", da.data[m], packageDx.data[m], largest(packageDx.data)),
    );
  }
  draw();
  return [
    h(
      "p",
      {},
      "Each input reached every output through one weight. So it gets back the sum over the outputs: that weight, times ",
      "what arrives there.",
    ),
    h("div", { class: "tools" }, legend(largest(da.data), "dA")),
    product.element,
    h("h3", {}, "Number by number, over the outputs"),
    strips.element,
    result,
    explain({
      equations: ["ddense"],
      shapes: [
        ["Wᵀ", times(inputs, outputs)],
        ["dZ", times(outputs, 1)],
        ["dA", times(inputs, 1)],
      ],
      codes: denseCodes(view, "The product Aᵀ B", "dx"),
    }),
  ];
}
