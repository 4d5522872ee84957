// Any other stage: its output beside its input, and which cell of the one becomes which cell of the other.

import { placeIn, strongest } from "./arrays.js";
import { ink } from "./colour.js";
import { fixed, h, mainWidth, short, stepper, times } from "./dom.js";
import { equationsOf } from "./equations.js";
import { explain } from "./explain.js";
import { cellMark, fitted, Grid } from "./grid.js";
import { channel, heatOf, legendOf, mapFigure } from "./maps.js";
import { inputOf, outputOf, parameterOf } from "./source.js";
import { mapSide } from "./stage-conv.js";

const REARRANGED = ["transpose", "channel_shuffle", "pixel_shuffle", "slice", "pad", "resize"]; // not in row-major order

/** Return how many channels an activation has; features count as one. */
function channelsOf({ shape }) {
  return shape.length === 3 ? shape[0] : 1;
}

/**
 * The view of a stage as its input and its output, one channel of each at a time.
 *
 * Where both have as many numbers, the k-th in row-major order becomes the k-th; `pointed` has that index, `at`, and the
 * channels shown of both.
 */
class MapView {
  constructor(store, stage) {
    const { trace } = store.state;
    Object.assign(this, { store, stage, x: inputOf(trace, stage.name), y: outputOf(trace, stage.name) });
    this.linked = this.x.data.length === this.y.data.length && !REARRANGED.includes(stage.kind);
    this.global = stage.kind.startsWith("global_") && this.y.shape[0] === this.x.shape[0];
    this.pointed = { before: 0, after: 0, at: null };
    this.before = this.grid(this.x, "X", "before");
    this.after = this.grid(this.y, "Y", "after");
    this.mask = stage.kind === "relu" ? this.maskGrid() : null;
    this.captions = { before: h("span"), after: h("span") };
    this.note = h("div", { class: "becomes" });
    this.stepper = this.steps();
    this.element = h("article", { class: "maps-of-stage" }, this.parts());
    const { side = "after", at = strongest(this.y.data) } = store.state.pointed[stage.name] ?? {};
    this.point(side, at);
  }

  get same() {
    return times(this.x.shape) === times(this.y.shape);
  }

  grid(array, letter, side) {
    const { rows, cols, value } = channel(array, 0);
    const room =
      array.shape.length === 3
        ? mapSide(this.stage.kind === "relu" ? mapSide() / 1.2 : 0)
        : mainWidth() - 6;
    const area = rows * cols;
    return new Grid({
      rows,
      cols,
      value,
      heat: heatOf(array),
      label: `${letter} of ${this.stage.name}`,
      name: side === "before" ? "image" : "output",
      point: (r, k) => this.point(side, Math.min(array.data.length - 1, this.pointed[side] * area + r * cols + k)),
      describe: (r, k) => `${letter}: ${short(channel(array, this.pointed[side]).value(r, k))}`,
      cell: fitted(rows, cols, room, 380),
    });
  }

  maskGrid() {
    const { x, pointed } = this;
    const { rows, cols } = channel(x, 0);
    return new Grid({
      rows,
      cols,
      value: (r, k) => {
        const value = channel(x, pointed.before).value(r, k);
        return value === null ? null : Number(value > 0);
      },
      heat: ink(1),
      label: "The mask: 1 where X > 0",
      name: "mask",
      cell: this.before.cell,
    });
  }

  /** Point at a number of the input or of the output. */
  point(side, at) {
    const { pointed, linked } = this;
    const area = (array) => array.data.length / channelsOf(array);
    Object.assign(pointed, { side, at });
    if (linked || side === "before") pointed.before = Math.floor(at / area(this.x));
    if (linked || side === "after") pointed.after = Math.floor(at / area(this.y));
    if (this.global && side === "after") pointed.before = at;
    this.store.state.pointed[this.stage.name] = { ...this.pointed };
    this.showChannels();
    this.mark();
  }

  steps() {
    const count = Math.max(channelsOf(this.x), channelsOf(this.y));
    const choose = (k) => {
      const side = channelsOf(this.y) > 1 ? "after" : "before";
      const array = side === "after" ? this.y : this.x;
      this.point(side, (k * array.data.length) / channelsOf(array));
    };
    return count > 1 ? stepper({ label: "Channel", count, value: this.pointed.after, change: choose }) : null;
  }

  parts() {
    const { stage, x, y } = this;
    return [
      h("h2", {}, `${stage.name}: ${stage.layer.split("(")[0]}`),
      stage.layer.endsWith("()") ? null : h("p", { class: "caption wraps" }, stage.layer),
      h("div", { class: "tools" }, this.stepper?.element, legendOf(x, "X"), legendOf(y, "Y")),
      h(
        "div",
        { class: "maps" },
        mapFigure("Input", this.captions.before, this.before, "patch"),
        this.mask && mapFigure("Mask", "1 where X > 0", this.mask),
        mapFigure("Output", this.captions.after, this.after, "result"),
      ),
      this.note,
      explain({
        equations: equationsOf(stage),
        note: stage.equation,
        shapes: [
          ["X", times(x.shape)],
          ["Y", times(y.shape)],
        ],
        codes: [[stage.layer.split("(")[0], stage.code.forward]],
      }),
    ];
  }

  showChannels() {
    const { pointed, x, y, shown = {} } = this;
    if (shown.before === pointed.before && shown.after === pointed.after) return;
    const named = (letter, array, c) =>
      array.shape.length === 3 ? `${letter}[${c}], ${times(array.shape.slice(1))}` : `${letter}, ${times(array.shape)} in rows`;
    this.before.show(channel(x, pointed.before).value, `Input of ${this.stage.name}, channel ${pointed.before}`);
    this.after.show(channel(y, pointed.after).value, `Output of ${this.stage.name}, channel ${pointed.after}`);
    this.captions.before.textContent = named("X", x, pointed.before);
    this.captions.after.textContent = named("Y", y, pointed.after);
    this.mask?.draw();
    this.stepper?.set(Math.max(pointed.before, pointed.after));
    this.shown = { before: pointed.before, after: pointed.after };
    Object.assign(this.element.dataset, { channel: pointed.after });
  }

  mark() {
    const { pointed, x, y, linked } = this;
    const { at, side } = pointed;
    const cell = (array, index) => {
      const { cols, rows } = channel(array, 0);
      const inside = array.shape.length === 3 ? index % (rows * cols) : index;
      return [cellMark([Math.floor(inside / cols), inside % cols], "result")];
    };
    const meant = (each) => linked || side === each;
    this.before.mark(meant("before") ? cell(x, at) : this.wholeChannel());
    this.mask?.mark(cell(x, at));
    this.after.mark(meant("after") ? cell(y, at) : []);
    this.element.dataset.position = at;
    this.note.replaceChildren(...this.written());
  }

  /** Return the frame of a whole channel, of which a global pooling makes one number. */
  wholeChannel() {
    const { before, global, pointed } = this;
    return global && pointed.side === "after" ? [{ rows: [0, before.rows], cols: [0, before.cols], role: "patch" }] : [];
  }

  /** Return what is said of the number that is pointed at. */
  written() {
    const { pointed, same, x, y, linked, stage, global } = this;
    const { at, side } = pointed;
    const value = (array) => h("output", { class: "value", "data-value": array.data[at] }, fixed(array.data[at]));
    const name = (letter, array) => `${letter}[${placeIn(array.shape, at).join(", ")}]`;
    if (!linked) {
      const array = side === "before" ? x : y;
      const from = global && side === "after" ? ` comes from all ${x.data.length / x.shape[0]} numbers of channel ${at}` : "";
      return [h("p", { class: "total" }, `${name(side === "before" ? "X" : "Y", array)} = `, value(array), from)];
    }
    const line = h("p", { class: "total" }, `${name("X", x)} = ${fixed(x.data[at])} becomes ${name("Y", y)} = `, h("strong", {}, value(y)));
    const why = same ? reasonOf(this, x.data[at]) : rowMajor(x.shape, at);
    return [line, h("p", { class: "caption" }, why || `By the layer's equation: ${stage.equation}`)];
  }
}

function rowMajor(shape, at) {
  if (shape.length !== 3) return `Both have it at ${at} in row-major order: no number moves in memory.`;
  const [c, i, j] = placeIn(shape, at);
  return `(${c} · ${shape[1]} + ${i}) · ${shape[2]} + ${j} = ${at}: its place in row-major order, so that no number moves in memory.`;
}

/** Return why a number becomes what it becomes, with the layer's own numbers. */
function reasonOf({ stage, store, pointed, x }, value) {
  if (stage.kind === "relu")
    return value > 0 ? "X > 0: it passes, and so will its gradient." : "X ≤ 0: it becomes 0, and its gradient will be 0.";
  if (stage.kind === "residual") return branchesOf(store.state, stage, pointed.at, value);
  if (stage.kind !== "batch_norm") return "";
  const { weights } = store.state.network;
  const c = x.shape.length === 3 ? pointed.before : pointed.at;
  const own = (word) => parameterOf(weights, stage, word)?.data[c];
  const [weight, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map(own);
  const epsilon = /epsilon=([\d.e-]+)/.exec(stage.layer)?.[1] ?? "ε";
  const standardized = `(${short(value)} − ${short(mean)}) / √(${short(variance)} + ${epsilon})`;
  return `${short(weight)} · ${standardized} + ${short(bias)}, with the numbers of channel ${c}.`;
}

/** Return what the two branches of a residual connection bring to a number. */
function branchesOf({ network, trace }, stage, at, value) {
  const last = (branch) => network.stages.findLast((each) => each.name.startsWith(`${stage.name}.${branch}.`));
  const brought = (branch) => (last(branch) ? outputOf(trace, last(branch).name).data[at] : value);
  return `The body brings ${fixed(brought("body"))}, the shortcut ${fixed(brought("shortcut"))}: Y is their sum.`;
}

/** Return the view of a stage that is shown as its input and its output. */
export function mapStage(store, stage) {
  return new MapView(store, stage).element;
}
