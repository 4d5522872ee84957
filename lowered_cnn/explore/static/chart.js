// Charts of curves over training steps, drawn as SVG.

import { announce, h, short, svg } from "./dom.js";

const CHART_LEFT = 60; // pixels for the labels of the axis
const CHART_RIGHT = 12;
const CHART_TOP = 10;
const CHART_BOTTOM = 24;
const CHART_HEIGHT = 210;
const CHART_MOST = 400; // points of a curve that are drawn

/**
 * Curves over steps. draw({ series, to, marker }) draws them: each of the series has a name, a colour class, points
 * [step, value], and `faint`, `dashed` or `dots` if it is to look so; `to` is the last step of the axis, and marker a
 * step that is marked. point(step) is called when a step is pointed at, with the mouse or the arrow keys.
 */
export class Chart {
  constructor({ title, unit = "", log = false, from = null, top = null, name, format = short, point }) {
    Object.assign(this, { title, unit, log, from, top, format, point, given: { series: [], to: 1 } });
    this.svg = svg("svg", { role: "img", height: CHART_HEIGHT });
    this.key = h("p", { class: "chart-key" });
    this.stage = h(
      "div",
      {
        class: "chart-stage",
        tabindex: "0",
        role: "group",
        "aria-label": `${title}; the arrow keys move from step to step`,
        onpointermove: (event) => this.pointed(event),
        onpointerleave: () => this.point?.(),
        onkeydown: (event) => this.pressed(event),
      },
      this.svg,
    );
    this.element = h(
      "figure",
      { class: "chart", "data-name": name },
      h("figcaption", {}, h("strong", {}, title), " ", unit),
      this.stage,
      this.key,
    );
    this.watch = new ResizeObserver(() => this.stage.clientWidth !== this.width && this.draw(this.given));
    this.watch.observe(this.stage);
  }

  draw(given) {
    this.given = given;
    this.width = this.stage.clientWidth;
    if (!this.width) return;
    const { series, to, marker } = given;
    const values = series
      .flatMap((each) => each.points.map(([, value]) => value))
      .filter((value) => Number.isFinite(value) && (!this.log || value > 0));
    this.to = Math.max(to, 1);
    this.scale = chartScale(values, this);
    this.cursor = svg("line", { class: "chart-cursor", y1: CHART_TOP, y2: CHART_HEIGHT - CHART_BOTTOM });
    this.svg.setAttribute("width", this.width);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${CHART_HEIGHT}`);
    this.svg.replaceChildren(
      svg("title", {}, this.title),
      ...this.axes(),
      ...series.flatMap((each) => this.curve(each)),
      marker === undefined
        ? ""
        : svg("line", { class: "chart-marker", x1: this.x(marker), x2: this.x(marker), y1: CHART_TOP, y2: CHART_HEIGHT - CHART_BOTTOM }),
      values.length
        ? ""
        : svg("text", { class: "chart-text", x: this.width / 2, y: CHART_HEIGHT / 2, "text-anchor": "middle" }, "nothing yet"),
      this.cursor,
    );
    this.read(given.read);
  }

  /** Say the values at a step below the chart; without a step, those at the end. */
  read(step) {
    this.given.read = step;
    for (const end of ["x1", "x2"]) this.cursor?.setAttribute(end, step === undefined ? -9 : this.x(step));
    const entries = this.given.series
      .filter((each) => each.points.length && (!each.faint || step !== undefined))
      .map((each) => {
        const found = step === undefined ? each.points.at(-1) : each.points.findLast(([at]) => at <= step);
        return h(
          "span",
          { class: `chart-entry ${each.colour}${each.dashed ? " dashed" : ""}${each.faint ? " faint" : ""}` },
          `${each.name} `,
          h("b", {}, found ? this.format(found[1]) : "–"),
        );
      });
    this.key.replaceChildren(...entries, step === undefined ? "" : h("span", { class: "chart-step" }, `step ${step}`));
  }

  x(step) {
    return CHART_LEFT + (step / this.to) * (this.width - CHART_LEFT - CHART_RIGHT);
  }

  y(value) {
    const { low, high } = this.scale;
    const at = this.log ? Math.log10(value) : value;
    return CHART_HEIGHT - CHART_BOTTOM - ((at - low) / (high - low)) * (CHART_HEIGHT - CHART_TOP - CHART_BOTTOM);
  }

  axes() {
    const across = this.scale.ticks.flatMap((tick) => [
      svg("line", { class: "chart-line", x1: CHART_LEFT, x2: this.width - CHART_RIGHT, y1: this.y(tick), y2: this.y(tick) }),
      svg("text", { class: "chart-text", x: CHART_LEFT - 6, y: this.y(tick) + 4, "text-anchor": "end" }, this.format(tick)),
    ]);
    const along = chartTicks(0, this.to, Math.max(2, Math.floor(this.width / 80))).filter(Number.isInteger);
    const steps = along.map((tick) =>
      svg(
        "text",
        {
          class: "chart-text",
          x: this.x(tick),
          y: CHART_HEIGHT - 6,
          "text-anchor": tick === 0 ? "start" : this.x(tick) > this.width - 30 ? "end" : "middle",
        },
        tick === 0 ? "step 0" : String(tick),
      ),
    );
    return [...across, ...steps];
  }

  curve({ name, colour, points, faint, dashed, dots }) {
    const kept = chartThinned(points.filter(([, value]) => Number.isFinite(value) && (!this.log || value > 0)));
    const path = kept.map(([step, value], k) => `${k ? "L" : "M"}${this.x(step).toFixed(1)} ${this.y(value).toFixed(1)}`).join("");
    const look = `chart-curve ${colour}${faint ? " faint" : ""}${dashed ? " dashed" : ""}`;
    const marks =
      dots || kept.length === 1
        ? kept.map(([step, value]) => svg("circle", { class: `chart-dot ${colour}`, cx: this.x(step), cy: this.y(value), r: 3 }))
        : [];
    return [svg("path", { class: look, d: path, "data-series": name }), ...marks];
  }

  pointed(event) {
    const box = this.stage.getBoundingClientRect();
    const share = (event.clientX - box.left - CHART_LEFT) / (this.width - CHART_LEFT - CHART_RIGHT);
    this.point?.(Math.round(Math.max(0, Math.min(1, share)) * this.to));
  }

  pressed(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageDown: 20, PageUp: -20 }[event.key];
    if (!by) return;
    event.preventDefault();
    this.point?.(Math.max(0, Math.min(this.to, (this.given.read ?? this.to) + by)));
    announce(this.key.innerText);
  }
}

/** Return the ends of the axis of values, as logarithms if it is logarithmic, and its ticks. */
function chartScale(values, { log, from, top }) {
  const least = from ?? (values.length ? values.reduce((a, b) => Math.min(a, b)) : log ? 0.1 : 0);
  const most = Math.max(top ?? -Infinity, values.length ? values.reduce((a, b) => Math.max(a, b)) : 1);
  if (!log) {
    const ticks = chartTicks(least, most > least ? most : least + 1, 4);
    const step = ticks[1] - ticks[0];
    const high = top === null ? Math.ceil(most / step - 1e-9) * step : most;
    return { low: Math.min(least, ticks[0]), high: high > least ? high : least + 1, ticks };
  }
  const low = Math.floor(Math.log10(least) * 2) / 2;
  const high = Math.max(low + 1, Math.ceil(Math.log10(most) * 2) / 2);
  const every = Math.max(1, Math.ceil((high - low) / 5));
  const ticks = [];
  for (let power = Math.ceil(low); power <= high; power += every) ticks.push(10 ** power);
  return { low, high, ticks };
}

/** Return about `count` round numbers between two numbers. */
function chartTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; k++) ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

/** Return a curve of which, if it has many points, only the lowest and the highest of each stretch are left. */
function chartThinned(points) {
  if (points.length <= CHART_MOST) return points;
  const size = Math.ceil(points.length / (CHART_MOST / 2));
  const kept = [];
  for (let k = 0; k < points.length; k += size) {
    const stretch = points.slice(k, k + size);
    const low = stretch.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = stretch.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low[0] < high[0] ? [low, high] : high === low ? [low] : [high, low]));
  }
  return kept;
}

/** Return a running mean of points: each value is moved towards the next by a share. */
export function smoothed(points, share) {
  let mean = 0;
  return points.map(([step, value], k) => {
    mean += (1 - share) * (value - mean);
    return [step, mean / (1 - share ** (k + 1))];
  });
}
