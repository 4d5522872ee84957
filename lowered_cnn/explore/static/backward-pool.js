// Pooling, backward: to the first maximum of each window, or shared among all of its cells.

import { largest, strongest } from "./arrays.js";
import { backwardRoom, besidePackage, namedGrid, remembered } from "./backward-parts.js";
import { diverging } from "./colour.js";
import { h, short, stepper, times } from "./dom.js";
import { explain } from "./explain.js";
import { cellMark } from "./grid.js";
import { Lowering } from "./lowering.js";
import { channel, heatOf, legend, mapFigure } from "./maps.js";
import { gradientOf, inputGradientOf, inputOf } from "./source.js";
import { paddedGrid, patchMarks, pixelMark, windowShape } from "./stage-conv.js";

const POOL_WORDS = {
  max_pool: {
    title: "the gradient goes where the maximum was",
    equation: "dmax_pool",
    text: [
      "Only the largest number of a window reached the output, so only it gets the gradient; if several are equally large, ",
      "the first one does. All others get 0.",
    ],
  },
  avg_pool: {
    title: "the gradient is shared",
    equation: "davg_pool",
    text: [
      "All numbers of a window counted the same, so each gets the same share of the gradient. This too is col2im, of a ",
      "product with a constant row.",
    ],
  },
};

/** Return the view of a pooling, backward. */
export function backwardPool(store, stage) {
  return new PoolBackward(store, stage).element;
}

/** The view of a pooling, backward; `chosen` has a channel, a position and, if one was pointed at, a pixel. */
class PoolBackward {
  constructor(store, stage) {
    const { trace } = store.state;
    this.stage = stage;
    this.isMax = stage.view === "max_pool";
    this.lowering = new Lowering({ channels: 1, sweep: stage.sweep });
    this.x = inputOf(trace, stage.name);
    this.dy = gradientOf(trace, stage.name);
    this.packageDx = inputGradientOf(trace, stage.name);
    this.chosen = remembered(store, `backward ${stage.name}`, { channel: 0, position: undefined });
    this.chosen.position ??= strongest(this.dy.data.subarray(0, this.lowering.positions));
    this.said = h("div", {});
    this.element = h("article", {});
    this.show();
  }

  /** Show the chosen channel. */
  show() {
    const { chosen, dy, lowering, packageDx, stage, x } = this;
    const words = POOL_WORDS[stage.view];
    this.arriving = this.arrivingGrid();
    this.input = this.inputGrid("x", x, heatOf(x), "X");
    this.leaving = this.inputGrid("dx", packageDx, diverging(largest(packageDx.data)), "dX");
    const channels = stepper({
      label: "Channel",
      count: stage.output_shape[0],
      value: chosen.channel,
      change: (k) => (Object.assign(chosen, { channel: k, pixel: undefined }), this.show()),
    });
    this.element.replaceChildren(
      h("h2", {}, `${stage.name}: ${words.title}`),
      h("p", {}, words.text),
      h("div", { class: "tools" }, channels.element, legend(largest(dy.data), "dY")),
      h(
        "div",
        { class: "maps" },
        mapFigure("dY", "arrives", this.arriving, "result"),
        mapFigure("X", "in the forward pass", this.input, "patch"),
        mapFigure("dX", "is handed on", this.leaving),
      ),
      this.said,
      explain({
        equations: [words.equation],
        shapes: [
          ["dY", times(stage.output_shape)],
          ["window", windowShape(lowering.sweep)],
          ["dX", times(stage.input_shape)],
        ],
        codes: [[`${stage.kind}, backward`, stage.code.backward]],
      }),
    );
    this.mark();
  }

  arrivingGrid() {
    const { chosen, dy, lowering, stage } = this;
    const { value } = channel(dy, chosen.channel);
    return namedGrid({
      name: "dy",
      rows: lowering.oh,
      cols: lowering.ow,
      value,
      magnitude: largest(dy.data),
      label: `dY of ${stage.name}, channel ${chosen.channel}`,
      point: (i, j) => this.pick({ position: i * lowering.ow + j, pixel: undefined }),
      describe: (i, j) => `dY at ${i}, ${j}: ${short(value(i, j))}`,
      width: 240,
    });
  }

  inputGrid(name, array, heat, letter) {
    const { chosen, lowering, stage } = this;
    const { value } = channel(array, chosen.channel);
    return paddedGrid(lowering, array, chosen.channel, {
      name,
      label: `${letter} of ${stage.name}, channel ${chosen.channel}`,
      heat,
      side: Math.min(320, backwardRoom()),
      point: (y, k) => this.pickPixel(y, k),
      describe: (y, k) => (lowering.inside(y, k) ? `${letter} at ${y}, ${k}: ${short(value(y, k))}` : "padding"),
    });
  }

  pick(changes) {
    Object.assign(this.chosen, changes);
    this.mark();
  }

  pickPixel(y, k) {
    const [reader] = this.lowering.inside(y, k) ? this.lowering.readers(0, y, k) : [];
    if (reader) this.pick({ position: reader.position, pixel: [y, k] });
  }

  mark() {
    const { chosen, isMax, lowering } = this;
    const shares = this.shares(chosen.position);
    const winner = shares.find(({ share }) => share > 0);
    const pixel = chosen.pixel ?? winner?.pixel ?? [0, 0];
    this.arriving.mark([cellMark(lowering.place(chosen.position), "result")]);
    for (const grid of [this.input, this.leaving]) {
      const taking = isMax && winner ? [pixelMark(lowering, ...winner.pixel)] : [];
      grid.mark([...patchMarks(lowering, chosen.position), pixelMark(lowering, ...pixel, "result"), ...taking]);
    }
    this.said.replaceChildren(...this.told(shares, winner, pixel));
  }

  /** Return the cells of a window that lie inside: {pixel, value, share}, share being the part of dY that each gets. */
  shares(position) {
    const { chosen, isMax, lowering, stage, x } = this;
    const { value } = channel(x, chosen.channel);
    const cells = [];
    for (let tap = 0; tap < lowering.rows; tap++) {
      const [, y, k] = lowering.pixel(tap, position);
      if (lowering.inside(y, k)) cells.push({ pixel: [y, k], value: value(y, k) });
    }
    const most = Math.max(...cells.map((cell) => cell.value));
    const first = cells.findIndex((cell) => cell.value === most);
    return cells.map((cell, k) => ({ ...cell, share: isMax ? Number(k === first) : 1 / stage.counts.data[position] }));
  }

  /** Return dX of a pixel: the sum over the windows that lie over it. */
  dx([y, k]) {
    const { value } = channel(this.dy, this.chosen.channel);
    return this.lowering.readers(0, y, k).reduce((sum, { position }) => {
      const mine = this.shares(position).find(({ pixel }) => pixel[0] === y && pixel[1] === k);
      return sum + mine.share * value(...this.lowering.place(position));
    }, 0);
  }

  told(shares, winner, pixel) {
    const { chosen, dy, lowering, packageDx } = this;
    const arrives = channel(dy, chosen.channel).value(...lowering.place(chosen.position));
    const windows = lowering.readers(0, ...pixel).length;
    const own = channel(packageDx, chosen.channel).value(...pixel);
    return [
      h("p", { class: "total" }, winner ? this.split(shares, winner, arrives) : "The whole window lies in the padding."),
      h("p", { class: "caption" }, `dX at ${pixel.join(", ")}${windows > 1 ? `, the sum over ${windows} windows` : ""}:`),
      besidePackage("dx", this.dx(pixel), own, largest(packageDx.data)),
    ];
  }

  /** Return a sentence on what each number of a window gets. */
  split(shares, { value, pixel, share }, arrives) {
    const numbers = shares.map((cell) => short(cell.value)).join(", ");
    const part = `${short(share)} × ${short(arrives)} = ${short(share * arrives)}`;
    if (!this.isMax) return `${short(arrives)} arrives; each of ${numbers} gets ${part}.`;
    const others = `the other ${shares.length - 1} get 0`;
    return `Of ${numbers}, the first maximum is ${short(value)} at ${pixel.join(", ")}: it gets ${short(arrives)}, ${others}.`;
  }
}
