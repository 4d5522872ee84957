// A dense layer: one row of W for each unit, times the features.

import { largest, matrix } from "./arrays.js";
import { grouped, h, mainWidth, short, stepper, times } from "./dom.js";
import { equationsOf } from "./equations.js";
import { explain } from "./explain.js";
import { heatOf, legend, legendOf } from "./maps.js";
import { Product } from "./product.js";
import { inputOf, outputOf, parameterOf } from "./source.js";
import { Sum, Terms } from "./sum.js";

const LARGEST_TERMS = 8;

/** The view of a dense layer; `pointed` has a unit, and a feature if a single term is meant. */
class DenseView {
  constructor(store, stage) {
    const { network, trace } = store.state;
    Object.assign(this, { store, stage });
    this.pointed = { unit: 0, ...store.state.pointed[stage.name] };
    this.weight = parameterOf(network.weights, stage, "weight");
    this.bias = parameterOf(network.weights, stage, "bias");
    this.a = inputOf(trace, stage.name).data;
    this.z = outputOf(trace, stage.name).data;
    this.sum = new Sum();
    this.terms = new Terms({
      count: this.a.length,
      heads: ["feature", "A", "W", "A · W"],
      cells: (k) => [String(k), short(this.a[k]), short(this.w(k)), short(this.term(k))],
      point: (feature) => this.point({ feature }),
    });
    const name = stage.name === network.stages.at(-1).name ? (k) => `${k}: ${network.classes[k]}` : String;
    this.units = stepper({ label: "Unit", count: this.z.length, value: this.pointed.unit, name, change: (unit) => this.point({ unit }) });
    this.heading = h("span");
    this.product = this.figure();
    this.element = h("article", { class: "dense" }, this.parts());
    this.mark();
  }

  w(feature) {
    return this.weight.data[this.pointed.unit * this.a.length + feature];
  }

  term(feature) {
    return this.w(feature) * this.a[feature];
  }

  point(changes) {
    Object.assign(this.pointed, { feature: undefined }, changes);
    this.store.state.pointed[this.stage.name] = { ...this.pointed };
    this.mark();
  }

  figure() {
    const { a, weight, z, pointed } = this;
    return new Product({
      a: weight,
      b: matrix(a.length, 1, a),
      c: matrix(z.length, 1, z),
      names: { a: "W", b: "A", c: this.bias ? "Z = W · A + b" : "Z = W · A" },
      point: ({ m, k }) => this.point({ unit: m ?? pointed.unit, feature: k }),
      describe: {
        a: (m, k) => `W of unit ${m}, feature ${k}: ${short(weight.data[m * a.length + k])}`,
        b: (k) => `A[${k}] = ${short(a[k])}`,
        c: (m) => `Z[${m}] = ${short(z[m])}`,
      },
      heats: { b: heatOf({ data: a }) },
      corner: h(
        "figure",
        { class: "one" },
        h("figcaption", {}, h("strong", {}, "The sum"), " ", this.heading),
        this.sum.element,
        this.terms.element,
      ),
      width: mainWidth(),
    });
  }

  parts() {
    const { network } = this.store.state;
    const { a, stage, weight, z } = this;
    return [
      h("h2", {}, `${stage.name}: every unit reads every feature`),
      h(
        "div",
        { class: "tools" },
        this.units.element,
        legend(largest(weight.data), "W"),
        legendOf({ data: a }, "A"),
        legend(largest(z), "Z"),
      ),
      this.product.element,
      explain({
        equations: equationsOf(stage),
        note: stage.equation,
        shapes: [
          ["A", `K = ${a.length}`],
          ["W", `M × K = ${times(weight.shape)}`],
          ["Z", `M = ${z.length}`],
          ["work", `2 M K = ${grouped(2 * weight.data.length)} FLOP; a batch of N images is one product M × K × N`],
        ],
        codes: [
          [stage.layer.split("(")[0], stage.code.forward],
          ["the product", network.code.affine],
        ],
      }),
    ];
  }

  mark() {
    const { pointed, product } = this;
    product.select({ m: pointed.unit, k: pointed.feature, n: 0 });
    this.units.set(pointed.unit);
    this.heading.textContent = `of unit ${pointed.unit}, the largest terms first`;
    this.sum.update(this.lines());
    this.terms.update(pointed.feature);
    Object.assign(this.element.dataset, { unit: pointed.unit, row: pointed.feature ?? "" });
  }

  lines() {
    const { bias, pointed, z } = this;
    const terms = Array.from(this.a, (_, k) => this.term(k));
    const order = [...terms.keys()].sort((p, q) => Math.abs(terms[q]) - Math.abs(terms[p]));
    const first = order.slice(0, LARGEST_TERMS);
    if (pointed.feature !== undefined && !first.includes(pointed.feature)) first.splice(-1, 1, pointed.feature);
    const all = terms.reduce((p, q) => p + q, 0);
    const shown = first.reduce((total, k) => total + terms[k], 0);
    const line = (k) => [`W[${pointed.unit}, ${k}] · A[${k}]`, terms[k], k === pointed.feature ? "marked" : null];
    const rest = terms.length > first.length ? [[`${terms.length - first.length} other terms`, all - shown, null]] : [];
    const own = bias ? bias.data[pointed.unit] : 0;
    return { lines: [...first.map(line), ...rest, ...(bias ? [["bias", own, null]] : [])], total: all + own, value: z[pointed.unit] };
  }
}

/** Return the view of a dense layer. */
export function denseStage(store, stage) {
  return new DenseView(store, stage).element;
}
