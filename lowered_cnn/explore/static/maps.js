// Activations as pictures: one thumbnail for each channel, or a strip of cells for features.

import { largest } from "./arrays.js";
import { diverging, ink } from "./colour.js";
import { h, short, times } from "./dom.js";
import { fitted, Grid } from "./grid.js";

/** Return the colours of an activation: ink if nothing is below zero, else blue and orange. */
export function heatOf({ data }) {
  const most = largest(data);
  return data.some((value) => value < 0) ? diverging(most) : ink(most);
}

/** Return channel c of maps (C, H, W), or features (F) as one map, as a function of row and column with its size. */
export function channel(array, c) {
  const { shape, data } = array;
  if (shape.length !== 3) {
    const cols = Math.min(data.length, Math.ceil(Math.sqrt(data.length) * 2));
    const rows = Math.ceil(data.length / cols);
    return { rows, cols, value: (r, k) => (r * cols + k < data.length ? data[r * cols + k] : null) };
  }
  const [, rows, cols] = shape;
  return { rows, cols, value: (r, k) => data[(c * rows + r) * cols + k] };
}

/** Return a picture of an activation: thumbnails of up to `most` channels. */
export function thumbnails(array, { most, side, label }) {
  const channels = array.shape.length === 3 ? array.shape[0] : 1;
  const shown = Math.min(channels, most);
  const heat = heatOf(array);
  const pictures = Array.from({ length: shown }, (_, c) => {
    const { rows, cols, value } = channel(array, c);
    const wide = array.shape.length === 3 ? side : side * 2;
    const cell = fitted(rows, cols, wide, side);
    return new Grid({ rows, cols, value, heat, label: `${label}, channel ${c}`, cell, numbers: false }).element;
  });
  const more = channels > shown ? h("span", { class: "caption" }, `+ ${channels - shown}`) : null;
  return h("div", { class: "thumbnails", title: `${label}: ${times(array.shape)}` }, pictures, more);
}

/** Return a figure with a caption around grids or other elements. */
export function mapFigure(title, more, content, role = "") {
  const parts = [content].flat();
  return h(
    "figure",
    { class: `map ${role}` },
    h("figcaption", {}, h("strong", {}, title), " ", more, parts[0].unit ?? ""),
    parts.map((part) => part.element ?? part),
  );
}

/** Return the legend of a diverging scale, of what has that name. */
export function legend(most, name = "") {
  return scaleOf(-most, most, diverging(most), name);
}

/** Return the legend of the colours that heatOf gives an activation. */
export function legendOf(array, name = "") {
  const most = largest(array.data);
  return array.data.some((value) => value < 0) ? legend(most, name) : scaleOf(0, most, ink(most), name);
}

function scaleOf(from, to, heat, name) {
  const grid = new Grid({
    rows: 1,
    cols: 25,
    value: (_, c) => from + (c / 24) * (to - from),
    heat,
    label: "Scale",
    name: "scale",
    cell: 2.5,
    numbers: false,
  });
  const end = (value) => h("span", {}, short(Number(value.toPrecision(2))));
  return h("div", { class: "legend" }, name && h("strong", {}, name), end(from), grid.element, end(to));
}
