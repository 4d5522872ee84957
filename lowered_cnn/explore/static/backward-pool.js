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

/** Return the view of a pooling, backward. */
export function backwardPool(store, stage) {
  const { trace } = store.state;
  const chosen = remembered(store, `backward ${stage.name}`, { channel: 0, position: undefined });
  const pool = new PoolGradients(trace, stage);
  chosen.position ??= strongest(pool.dy.data.subarray(0, pool.lowering.positions));
  const isMax = stage.view === "max_pool";
  const article = h("article", {});
  const show = () => {
    const { lowering, x, dy, packageDx } = pool;
    const c = chosen.channel;
    const map = (name, array, heat, text) => {
      const { value } = channel(array, c);
      return paddedGrid(lowering, array, c, {
        name,
        label: `${text} of ${stage.name}, channel ${c}`,
        heat,
        side: Math.min(320, backwardRoom()),
        point: (y, k) => lowering.inside(y, k) && pointPixel(y, k),
        describe: (y, k) => (lowering.inside(y, k) ? `${text} at ${y}, ${k}: ${short(value(y, k))}` : "padding"),
      });
    };
    const upstream = channel(dy, c).value;
    const arriving = namedGrid({
      name: "dy",
      rows: lowering.oh,
      cols: lowering.ow,
      value: upstream,
      magnitude: largest(dy.data),
      label: `dY of ${stage.name}, channel ${c}`,
      point: (i, j) => pick({ position: i * lowering.ow + j, pixel: undefined }),
      describe: (i, j) => `dY at ${i}, ${j}: ${short(upstream(i, j))}`,
      width: 240,
    });
    const input = map("x", x, heatOf(x), "X");
    const leaving = map("dx", packageDx, diverging(largest(packageDx.data)), "dX");
    const said = h("div", {});
    function pick(changes) {
      Object.assign(chosen, changes);
      draw();
    }
    function pointPixel(y, k) {
      const [reader] = lowering.readers(0, y, k);
      if (reader) pick({ position: reader.position, pixel: [y, k] });
    }
    function draw() {
      const shares = pool.shares(c, chosen.position);
      const winner = shares.find((each) => each.share > 0) ?? { pixel: [0, 0] };
      const pixel = chosen.pixel ?? winner.pixel;
      const [i, j] = lowering.place(chosen.position);
      const taking = isMax ? [pixelMark(lowering, ...winner.pixel)] : [];
      arriving.mark([cellMark([i, j], "result")]);
      input.mark([...patchMarks(lowering, chosen.position), pixelMark(lowering, ...pixel, "result"), ...taking]);
      leaving.mark([...patchMarks(lowering, chosen.position), pixelMark(lowering, ...pixel, "result"), ...taking]);
      said.replaceChildren(...pool.told(isMax, c, [i, j], shares, pixel));
    }
    draw();
    article.replaceChildren(
      h("h2", {}, `${stage.name}: ${isMax ? "the gradient goes where the maximum was" : "the gradient is shared"}`),
      h(
        "p",
        {},
        isMax
          ? "Only the largest number of a window reached the output, so only it gets the gradient; if several are equally large, the first one does. All others get 0."
          : "All numbers of a window counted the same, so each gets the same share of the gradient. This too is col2im, of a product with a constant row.",
      ),
      h(
        "div",
        { class: "tools" },
        stepper({
          label: "Channel",
          count: stage.output_shape[0],
          value: c,
          change: (k) => (Object.assign(chosen, { channel: k, pixel: undefined }), show()),
        }).element,
        legend(largest(dy.data), "dY"),
      ),
      h(
        "div",
        { class: "maps" },
        mapFigure("dY", "arrives", arriving, "result"),
        mapFigure("X", "in the forward pass", input, "patch"),
        mapFigure("dX", "is handed on", leaving),
      ),
      said,
      explain({
        equations: [isMax ? "dmax_pool" : "davg_pool"],
        shapes: [
          ["dY", times(stage.output_shape)],
          ["window", windowShape(stage.sweep)],
          ["dX", times(stage.input_shape)],
        ],
        codes: [[`${stage.kind}, backward`, stage.code.backward]],
      }),
    );
  };
  show();
  return article;
}

/** What a pooling hands back for one image. */
class PoolGradients {
  constructor(trace, stage) {
    this.lowering = new Lowering({ channels: 1, sweep: stage.sweep });
    this.isMax = stage.view === "max_pool";
    this.counts = stage.counts?.data;
    this.x = inputOf(trace, stage.name);
    this.dy = gradientOf(trace, stage.name);
    this.packageDx = inputGradientOf(trace, stage.name);
  }

  /** Return the cells of a window that lie inside: {pixel, value, share}, share being the part of dY that each gets. */
  shares(c, position) {
    const { lowering, x } = this;
    const { value } = channel(x, c);
    const cells = [];
    for (let tap = 0; tap < lowering.rows; tap++) {
      const [, y, k] = lowering.pixel(tap, position);
      if (lowering.inside(y, k)) cells.push({ pixel: [y, k], value: value(y, k) });
    }
    const most = Math.max(...cells.map((cell) => cell.value));
    const first = cells.findIndex((cell) => cell.value === most);
    return cells.map((cell, k) => ({ ...cell, share: this.isMax ? Number(k === first) : 1 / this.counts[position] }));
  }

  /** Return dX of a pixel: the sum over the windows that lie over it. */
  dx(c, [y, k]) {
    const { value } = channel(this.dy, c);
    return this.lowering.readers(0, y, k).reduce((sum, { position }) => {
      const mine = this.shares(c, position).find(({ pixel }) => pixel[0] === y && pixel[1] === k);
      return sum + mine.share * value(...this.lowering.place(position));
    }, 0);
  }

  told(isMax, c, place, shares, pixel) {
    const arrives = channel(this.dy, c).value(...place);
    const numbers = shares.map((cell) => short(cell.value)).join(", ");
    const winner = shares.find((cell) => cell.share > 0);
    const windows = this.lowering.readers(0, ...pixel).length;
    return [
      h(
        "p",
        { class: "total" },
        isMax
          ? `Of ${numbers}, the first maximum is ${short(winner.value)} at ${winner.pixel.join(", ")}: it gets ${short(arrives)}, the other ${shares.length - 1} get 0.`
          : `${short(arrives)} arrives; each of ${numbers} gets ${short(winner.share)} × ${short(arrives)} = ${short(winner.share * arrives)}.`,
      ),
      h("p", { class: "caption" }, `dX at ${pixel.join(", ")}${windows > 1 ? `, the sum over ${windows} windows` : ""}:`),
      besidePackage("dx", this.dx(c, pixel), channel(this.packageDx, c).value(...pixel), largest(this.packageDx.data)),
    ];
  }
}
