// Any other stage, backward: dY beside dX, cell by cell; of a ReLU, its mask between them.

import { largest, strongest } from "./arrays.js";
import { backwardRoom, besidePackage, namedGrid, remembered } from "./backward-parts.js";
import { ink } from "./colour.js";
import { h, short, stepper, times } from "./dom.js";
import { explain } from "./explain.js";
import { cellMark } from "./grid.js";
import { channel, heatOf, legend, mapFigure } from "./maps.js";
import { gradientOf, inputGradientOf, inputOf } from "./source.js";

const MEANING = {
  relu:
    "Where X was above 0, the ReLU had changed nothing, and dY passes unchanged. Elsewhere its output was 0 whatever X was " +
    "nearby, and nothing passes.",
  batch_norm:
    "The image is shown as at inference: mean and variance are the running ones, which do not depend on it. So a channel has " +
    "one factor: dX = dY · weight / √(running_var + ε). In training they depend on the batch, and more terms flow back.",
};

/** Return the view of a stage that is shown as its gradients. */
export function backwardMaps(store, stage) {
  const { trace } = store.state;
  const chosen = remembered(store, `backward ${stage.name}`, { channel: 0, cell: undefined });
  const x = inputOf(trace, stage.name);
  const dy = gradientOf(trace, stage.name);
  const dx = inputGradientOf(trace, stage.name);
  chosen.cell ??= strongestCell(dx);
  const isRelu = stage.kind === "relu";
  const mask = { shape: x.shape, data: x.data.map((value) => Number(value > 0)) };
  const article = h("article", {});
  const show = () => {
    const planes = [
      isRelu ? mapPlane("x", "X", "in the forward pass", x, { heat: heatOf(x) }) : null,
      mapPlane("dy", "dY", "arrives", dy, { magnitude: largest(dy.data) }),
      isRelu ? mapPlane("mask", "[X > 0]", "1 or 0", mask, { heat: ink(1) }) : null,
      mapPlane("dx", "dX", "is handed on", dx, { magnitude: largest(dx.data) }),
    ].filter(Boolean);
    const said = h("div", {});
    for (const plane of planes) plane.grid = planeGrid(plane);
    function planeGrid({ name, title, array, colours }) {
      const { rows, cols, value } = channel(array, Math.min(chosen.channel, planesIn(array) - 1));
      return namedGrid({
        name,
        rows,
        cols,
        value,
        ...colours,
        label: `${title} of ${stage.name}`,
        point: (...cell) => {
          chosen.cell = cell;
          draw();
        },
        describe: (r, k) => `${title} at ${r}, ${k}: ${short(value(r, k))}`,
        width: isRelu ? 240 : Math.min(360, backwardRoom()),
      });
    }
    function draw() {
      const value = Object.fromEntries(planes.map(({ name, grid }) => [name, cellOf(grid, chosen.cell)]));
      for (const { grid } of planes) {
        const [r, k] = chosen.cell;
        grid.mark(r < grid.rows && k < grid.cols ? [cellMark([r, k], "result")] : []);
      }
      said.replaceChildren(...cellSaid(isRelu, value, largest(dx.data)));
    }
    draw();
    const channels = planesIn(dy);
    article.replaceChildren(
      h("h2", {}, `${stage.name}: ${isRelu ? "a mask lets the gradient through, or not" : stage.layer}`),
      MEANING[stage.kind] ? h("p", {}, MEANING[stage.kind]) : "",
      h(
        "div",
        { class: "tools" },
        channels > 1
          ? stepper({ label: "Channel", count: channels, value: chosen.channel, change: (k) => ((chosen.channel = k), show()) }).element
          : "",
        legend(largest(dy.data), "dY"),
      ),
      h(
        "div",
        { class: "maps" },
        planes.map(({ title, more, grid }) => mapFigure(title, more, grid)),
      ),
      said,
      explain({
        equations: isRelu ? ["drelu"] : [],
        note: stage.equation,
        shapes: [
          ["dY", times(dy.shape)],
          ["dX", times(dx.shape)],
        ],
        codes: [[`${stage.kind}, backward`, stage.code.backward]],
      }),
    );
  };
  show();
  return article;
}

/** Return the cell of the first plane with the largest gradient. */
function strongestCell(array) {
  const { rows, cols, value } = channel(array, 0);
  const best = strongest(Float32Array.from({ length: rows * cols }, (_, k) => value(Math.floor(k / cols), k % cols) ?? 0));
  return [Math.floor(best / cols), best % cols];
}

function mapPlane(name, title, more, array, colours) {
  return { name, title, more, array, colours };
}

function planesIn({ shape }) {
  return shape.length === 3 ? shape[0] : 1;
}

function cellOf(grid, [r, k]) {
  return r < grid.rows && k < grid.cols ? grid.value(r, k) : null;
}

function cellSaid(isRelu, { x, dy, mask, dx }, scale) {
  if (!isRelu) return [h("p", { class: "total" }, `dY ${short(dy)}, dX ${short(dx)}`)];
  if (x === null || dx === null) return [];
  return [
    h("p", { class: "total" }, `X = ${short(x)}: dX = ${short(dy)} × ${mask} = `, h("strong", {}, short(dy * mask))),
    besidePackage("dx", dy * mask, dx, scale),
  ];
}
