// The image: drawn with a mouse, a finger, a pen or the arrow keys, or one of the test images; and what the network says.

import { argmax, largestOnes } from "./arrays.js";
import { ink } from "./colour.js";
import { announce, bar, h, percent } from "./dom.js";
import { fitted, Grid } from "./grid.js";
import { channel } from "./maps.js";

const SIDE = 140; // pixels of the drawing, which the package then frames
const STROKE = 11;
const STEP = 5; // pixels that an arrow key moves the pen
const FOLDED = "lowered_cnn explorer: image folded"; // where the browser keeps that choice

/** A sheet to draw on, white on black inside; draw(image) is called with its grey levels after each stroke. */
class Sheet {
  constructor(draw) {
    this.draw = draw;
    this.pen = [SIDE / 2, SIDE / 2];
    this.down = false;
    this.canvas = h("canvas", {
      class: "sheet",
      width: SIDE,
      height: SIDE,
      tabindex: "0",
      role: "application",
      "aria-label": "Sheet to draw on. Arrow keys move the pen, the space bar lowers or lifts it, Delete clears the sheet.",
      onpointerdown: (event) => this.pressed(event),
      onpointermove: (event) => this.moved(event),
      onpointerup: () => this.lift(),
      onpointercancel: () => this.lift(),
      onblur: () => this.lift(),
      onkeydown: (event) => this.keyed(event),
    });
    this.cursor = h("span", { class: "pen", "aria-hidden": "true" });
    this.element = h("div", { class: "desk" }, this.canvas, this.cursor, h("span", { class: "hint", "aria-hidden": "true" }, "Draw here"));
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.clear();
    this.showPen();
  }

  clear() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, SIDE, SIDE);
    this.element.classList.add("empty");
  }

  showPen() {
    Object.assign(this.cursor.style, { left: `${(100 * this.pen[0]) / SIDE}%`, top: `${(100 * this.pen[1]) / SIDE}%` });
    this.cursor.classList.toggle("down", this.down);
  }

  lift() {
    this.down = false;
    this.showPen();
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
  }

  pressed(event) {
    event.preventDefault();
    this.canvas.focus({ focusVisible: false });
    this.canvas.setPointerCapture(event.pointerId);
    this.element.classList.remove("keyed");
    this.down = true;
    this.pen = this.at(event);
    this.stroke([this.pen]);
  }

  moved(event) {
    if (!this.down) return;
    const between = event.getCoalescedEvents?.() ?? [];
    this.stroke((between.length ? between : [event]).map((each) => this.at(each)));
  }

  /** Draw a line from the pen through some places. */
  stroke(places) {
    const { context } = this;
    Object.assign(context, { strokeStyle: "#fff", lineWidth: STROKE, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    context.moveTo(...this.pen);
    for (const [x, y] of places) context.lineTo(x + 0.01, y);
    context.stroke();
    this.pen = places.at(-1);
    this.element.classList.remove("empty");
    this.showPen();
    this.draw(this.image());
  }

  keyed(event) {
    const moves = { ArrowUp: [0, -STEP], ArrowDown: [0, STEP], ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0] };
    const move = moves[event.key];
    if (move) {
      const to = this.pen.map((part, axis) => Math.max(0, Math.min(SIDE, part + move[axis])));
      if (this.down) this.stroke([to]);
      this.pen = to;
    } else if (event.key === " ") {
      this.down = !this.down;
      if (this.down) this.stroke([this.pen]);
      announce(this.down ? "Pen down" : "Pen up");
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else return;
    this.element.classList.add("keyed");
    this.showPen();
    event.preventDefault();
  }

  image() {
    const { data } = this.context.getImageData(0, 0, SIDE, SIDE);
    return { shape: [1, SIDE, SIDE], data: Uint8Array.from({ length: SIDE * SIDE }, (_, k) => data[4 * k]) };
  }
}

/** Return a picture of an image (C, H, W): grey levels, or its colours; floats from their least, or 0, to their largest. */
export function picture({ shape, data }, side, label) {
  const [channels, rows, cols] = shape;
  const bytes = data instanceof Uint8Array;
  const low = data.reduce((least, value) => Math.min(least, value), 0);
  const span = (bytes ? 255 : data.reduce((most, value) => Math.max(most, value), 1e-30)) - low;
  const level = (c, r, k) => data[(c * rows + r) * cols + k] - low;
  const shade = ink(span);
  const grey = (value) => shade(value - low);
  const colour = (place) => [0, 1, 2].map((c) => (255 * level(c, Math.floor(place / cols), place % cols)) / span);
  return new Grid({
    rows,
    cols,
    value: channels === 3 ? (r, k) => r * cols + k : channel({ shape, data }, 0).value,
    heat: channels === 3 ? colour : grey,
    label,
    cell: fitted(rows, cols, side, side),
    numbers: false,
  });
}

/** Return the panel of the image. */
export function inputPanel(store) {
  const { network, source } = store.state;
  const sheet = new Sheet((drawing) => store.explore({ drawing }));
  const seen = h("div", { class: "seen" });
  const brief = h("span", { class: "brief" });
  const bars = h("ol", { class: "bars", "aria-label": "Probabilities" });
  const label = h(
    "select",
    { id: "label", onchange: () => relabel(store, Number(label.value)) },
    network.classes.map((name, k) => h("option", { value: k }, name)),
  );
  const part = (name, title, ...content) => h("section", { class: `part ${name}` }, title && h("h3", {}, title), content);
  const clear = h("button", { type: "button", onclick: () => sheet.clear() }, "Clear");
  const element = h(
    "div",
    { class: "panel" },
    h(
      "div",
      { class: "panel-head" },
      h("h2", {}, "The image"),
      brief,
      foldButton((folded) => element.classList.toggle("folded", folded)),
    ),
    source.live ? part("drawing", null, sheet.element, clear) : null,
    part("choosing", null, source.live ? testImages(store, sheet) : savedImages(store)),
    part("seeing", "What the network sees", seen),
    part("saying", "What it says", bars),
    part("choice", null, h("label", { for: "label" }, "True label, for the backward pass"), label),
  );
  element.classList.toggle("folded", folded());
  const update = () => {
    const { image, probabilities, label: chosen } = store.state;
    if (!image) return;
    seen.replaceChildren(picture(image, 112, "The network's input").element);
    const best = argmax(probabilities.data);
    brief.replaceChildren(
      picture(image, 28, "The network's input").element,
      ` ${network.classes[best]}, ${percent(probabilities.data[best])}`,
    );
    bars.replaceChildren(...probabilityBars(network.classes, probabilities.data, chosen));
    label.value = String(chosen);
  };
  store.on(["image", "probabilities", "label"], update);
  update();
  return element;
}

/** Explore the same image with another label. */
export function relabel(store, label) {
  const { image, number } = store.state;
  return store.explore({ image, number, label });
}

/** Return whether the panel was folded when it was last used; a browser may refuse to keep that. */
function folded() {
  try {
    return localStorage.getItem(FOLDED) === "yes";
  } catch {
    return false;
  }
}

/** Return the button that folds the panel where it would push the view off the screen. */
function foldButton(fold) {
  const named = (now) => (now ? "Show" : "Hide");
  const button = h(
    "button",
    { type: "button", class: "fold", "aria-expanded": String(!folded()), "aria-label": "Panel of the image", onclick: () => press() },
    named(folded()),
  );
  function press() {
    const now = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!now));
    button.textContent = named(now);
    fold(now);
    try {
      localStorage.setItem(FOLDED, now ? "yes" : "no");
    } catch {
      // without storage the choice lasts as long as the page
    }
  }
  return button;
}

/** Return one bar for each of the ten most likely classes, in the order of the classes. */
function probabilityBars(classes, shares, label) {
  const best = argmax(shares);
  return largestOnes(shares, 10).map((k) => {
    const marks = `${k === best ? "best" : ""} ${k === label ? "label" : ""}`.trim();
    return h(
      "li",
      { class: marks || null, "data-class": k, "data-share": shares[k] },
      h("span", { class: "name", title: classes[k] }, classes[k]),
      bar("bar", shares[k]),
      h("span", { class: "share" }, percent(shares[k])),
    );
  });
}

function testImages(store, sheet) {
  const { network } = store.state;
  const { count, mistakes } = network.test;
  const typed = () => number.reportValidity() && pick(Number(number.value));
  const attributes = { type: "number", required: true, min: "0", max: String(count - 1), value: store.state.number };
  const number = h("input", { ...attributes, onchange: typed });
  store.on(["number"], () => (number.value = store.state.number ?? ""));
  const pick = (n) => {
    sheet.clear();
    store.explore({ number: n });
  };
  const random = h("button", { type: "button", onclick: () => pick(Math.floor(Math.random() * count)) }, "Random");
  const wrong = h(
    "select",
    { onchange: () => wrong.value && pick(Number(wrong.value)) },
    h("option", { value: "" }, mistakes.length ? "a mistake …" : "no mistakes"),
    mistakes.map((each) =>
      h("option", { value: each.number }, `${network.classes[each.label]} taken for ${network.classes[each.predicted]} (${each.number})`),
    ),
  );
  return h(
    "div",
    { class: "choices" },
    h("label", {}, "Test image ", number),
    random,
    h("label", {}, h("span", { class: "hidden" }, "Mistakes"), wrong),
  );
}

function savedImages(store) {
  const { source } = store.state;
  const buttons = source.examples.map((each) =>
    h(
      "button",
      { type: "button", class: "thumbnail", title: each.name, onclick: () => store.explore(each) },
      picture(each.image, 56, each.name).element,
    ),
  );
  return h("div", { class: "choices" }, buttons);
}
