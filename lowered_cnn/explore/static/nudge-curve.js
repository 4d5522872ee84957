// J along one weight, drawn: the curve, the tangent that the gradient claims, and a secant that closes in on it.

import { h, short, svg } from "./dom.js";

const CURVE = { height: 320, left: 64, right: 16, top: 26, bottom: 44 };

/** The drawing of a nudged weight, with a slider that moves t along the curve. */
export class NudgeCurve {
  constructor({ curve, gradient }, room) {
    this.width = Math.max(280, Math.min(760, room));
    this.curve = curve;
    this.gradient = gradient;
    this.middle = (curve.length - 1) / 2;
    const values = curve.map(([, j]) => j);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = Math.max(high - low, 1e-12 + 1e-6 * Math.abs(high)) * 0.08;
    this.range = { t: [curve[0][0], curve.at(-1)[0]], j: [low - margin, high + margin] };
    this.secant = svg("line", { class: "secant" });
    this.ends = [svg("circle", { r: 5, class: "end" }), svg("circle", { r: 6, class: "end now" })];
    this.said = h("p", { class: "total" });
    this.slider = h("input", {
      type: "range",
      min: "0",
      max: String(curve.length - 1),
      value: String(Math.round(this.middle + curve.length / 4)),
      "aria-label": "Nudge t",
      oninput: () => this.draw(),
    });
    this.element = h("figure", { class: "curve" }, this.drawing(), h("label", { class: "nudge-slider" }, h("span", {}, "Nudge t"), this.slider), this.said);
    this.draw();
  }

  x(t) {
    const [from, to] = this.range.t;
    return CURVE.left + ((t - from) / (to - from)) * (this.width - CURVE.left - CURVE.right);
  }

  y(j) {
    const [from, to] = this.range.j;
    return CURVE.height - CURVE.bottom - ((j - from) / (to - from)) * (CURVE.height - CURVE.top - CURVE.bottom);
  }

  /** Return the ends of a line through (t, j) with a slope, from edge to edge. */
  line(t, j, slope) {
    const [from, to] = this.range.t;
    return { x1: this.x(from), y1: this.y(j + slope * (from - t)), x2: this.x(to), y2: this.y(j + slope * (to - t)) };
  }

  drawing() {
    const { curve, range, gradient, width } = this;
    const [, j0] = curve[this.middle];
    const { height, left, right, top, bottom } = CURVE;
    const text = (x, y, anchor, content) => svg("text", { x, y, "text-anchor": anchor }, content);
    const tick = (t) => svg("g", {}, svg("line", { x1: this.x(t), x2: this.x(t), y1: top, y2: height - bottom, class: "rule" }), text(this.x(t), height - bottom + 18, "middle", short(t)));
    const level = (j) => svg("g", {}, svg("line", { x1: left, x2: width - right, y1: this.y(j), y2: this.y(j), class: "rule" }), text(left - 8, this.y(j) + 4, "end", short(j)));
    const [low, high] = range.j;
    const clip = svg("clipPath", { id: "curve-box" }, svg("rect", { x: left, y: top, width: width - left - right, height: height - top - bottom }));
    return svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "J as a function of the nudge t, with the tangent that the gradient claims" },
      clip,
      ...[range.t[0], range.t[0] / 2, 0, range.t[1] / 2, range.t[1]].map(tick),
      ...[0.1, 0.5, 0.9].map((share) => level(low + share * (high - low))),
      text(width - right, height - 6, "end", "t, added to the weight"),
      text(left, top - 4, "start", "J"),
      svg(
        "g",
        { "clip-path": "url(#curve-box)" },
        svg("line", { ...this.line(0, j0, gradient), class: "tangent" }),
        this.secant,
        svg("polyline", { points: curve.map(([t, j]) => `${this.x(t)},${this.y(j)}`).join(" "), class: "j" }),
      ),
      svg("circle", { cx: this.x(0), cy: this.y(j0), r: 4, class: "here" }),
      ...this.ends,
    );
  }

  draw() {
    const { curve, middle } = this;
    const k = Number(this.slider.value);
    const other = 2 * middle - k;
    const [[t, j], [s, i]] = [curve[k], curve[other]];
    const slope = t === s ? this.gradient : (j - i) / (t - s);
    for (const [name, value] of Object.entries(this.line(t, j, slope))) this.secant.setAttribute(name, value);
    [[s, i], [t, j]].forEach(([a, b], e) => {
      this.ends[e].setAttribute("cx", this.x(a));
      this.ends[e].setAttribute("cy", this.y(b));
    });
    this.slider.setAttribute("aria-valuetext", `t = ${short(t)}, J = ${short(j)}`);
    this.said.replaceChildren(
      h("span", { class: "curve-key j" }, `J(w + ${short(t)}) = `, h("output", { "data-name": "j", "data-value": j }, j.toPrecision(6))),
      h("span", { class: "curve-key secant" }, t === s ? "the secant has become the tangent" : `secant through ±${short(Math.abs(t))}: slope ${short(slope)}`),
      h("span", { class: "curve-key tangent" }, `tangent, the gradient: slope ${short(this.gradient)}`),
    );
  }
}
