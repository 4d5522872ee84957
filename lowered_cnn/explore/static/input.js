// The image: drawn with a mouse, a finger, a pen or the arrow keys, or one of the test images; and what the network says.

import { argmax } from "./arrays.js";
import { ink } from "./colour.js";
import { announce, h, percent } from "./dom.js";
import { fitted, Grid } from "./grid.js";
import { channel } from "./maps.js";

const SIDE = 140; // pixels of the drawing, which the package then frames
const STROKE = 11;
const STEP = 5; // pixels that an arrow key moves the pen

/** A sheet to draw on, white on black inside; draw(image) is called after each stroke with its grey levels. */
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
      onpointerup: () => (this.down = false),
      onkeydown: (event) => this.keyed(event),
    });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.clear();
  }

  clear() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, SIDE, SIDE);
    this.inked = false;
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
  }

  pressed(event) {
    event.preventDefault();
    this.canvas.focus();
    this.canvas.setPointerCapture(event.pointerId);
    this.down = true;
    this.pen = this.at(event);
    this.stroke(this.pen);
  }

  moved(event) {
    if (!this.down) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) this.stroke(this.at(each));
  }

  stroke(to) {
    const { context } = this;
    context.strokeStyle = "#fff";
    context.lineWidth = STROKE;
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(...this.pen);
    context.lineTo(to[0] + 0.01, to[1]);
    context.stroke();
    this.pen = to;
    this.inked = true;
    this.draw(this.image());
  }

  keyed(event) {
    const moves = { ArrowUp: [0, -STEP], ArrowDown: [0, STEP], ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0] };
    const move = moves[event.key];
    if (move) {
      const to = this.pen.map((part, axis) => Math.max(0, Math.min(SIDE, part + move[axis])));
      if (this.down) this.stroke(to);
      this.pen = to;
    } else if (event.key === " ") {
      this.down = !this.down;
      if (this.down) this.stroke(this.pen);
      announce(this.down ? "Pen down" : "Pen up");
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else return;
    event.preventDefault();
  }

  image() {
    const { data } = this.context.getImageData(0, 0, SIDE, SIDE);
    return { shape: [1, SIDE, SIDE], data: Uint8Array.from({ length: SIDE * SIDE }, (_, k) => data[4 * k]) };
  }
}

/** Return a picture of an image (C, H, W): grey levels, or its colours. */
export function picture({ shape, data }, side, label) {
  const [channels, rows, cols] = shape;
  const top = data instanceof Uint8Array ? 255 : Math.max(...data, 1e-30);
  const level = (c, r, k) => data[(c * rows + r) * cols + k];
  const grey = ink(top);
  const colour = (place) => [0, 1, 2].map((c) => (255 * level(c, Math.floor(place / cols), place % cols)) / top);
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

/** Fill the panel of the image. show({ image | drawing, label }) is called with what is to be explored. */
export function inputPanel(store, show) {
  const { network, source } = store.state;
  const sheet = new Sheet((drawing) => show({ drawing }));
  const clear = h("button", { type: "button", onclick: () => sheet.clear() }, "Clear");
  const seen = h("div", { class: "seen" });
  const bars = h("ol", { class: "bars", "aria-label": "Probabilities" });
  const label = h(
    "select",
    { id: "label", onchange: () => show({ image: store.state.image, label: Number(label.value) }) },
    network.classes.map((name, k) => h("option", { value: k }, name)),
  );
  const element = h(
    "div",
    { class: "panel" },
    h("h2", {}, "The image"),
    source.live ? h("div", { class: "drawing" }, sheet.canvas, h("p", { class: "caption" }, "Draw here, or choose below. ", clear)) : null,
    source.live ? testImages(store, show, sheet) : savedImages(store, show),
    h("h3", {}, "What the network sees"),
    seen,
    h("h3", {}, "What it says"),
    bars,
    h("p", { class: "choice" }, h("label", { for: "label" }, "True label, for the backward pass"), label),
  );
  const update = () => {
    const { image, probabilities, label: chosen } = store.state;
    if (!image) return;
    seen.replaceChildren(picture(image, 112, "The network's input").element);
    bars.replaceChildren(...probabilityBars(network.classes, probabilities.data, chosen));
    label.value = String(chosen);
  };
  store.on(["image", "probabilities", "label"], update);
  update();
  return element;
}

/** Return one bar for each of the ten most likely classes, in the order of the classes. */
export function probabilityBars(classes, shares, label) {
  const best = argmax(shares);
  const kept = Array.from(shares.keys()).sort((a, b) => shares[b] - shares[a]).slice(0, 10).sort((a, b) => a - b);
  return kept.map((k) => {
    const bar = h("span", { class: "bar" });
    bar.style.setProperty("--share", shares[k]);
    const marks = `${k === best ? "best" : ""} ${k === label ? "label" : ""}`.trim();
    return h("li", { class: marks || null, "data-class": k }, h("span", { class: "name" }, classes[k]), bar, h("span", { class: "share" }, percent(shares[k])));
  });
}

function testImages(store, show, sheet) {
  const { network, source } = store.state;
  const { count, mistakes } = network.test;
  const number = h("input", { type: "number", min: "0", max: String(count - 1), value: "0", onchange: () => pick(Number(number.value)) });
  const pick = async (n) => {
    number.value = String(n);
    sheet.clear();
    show(await source.example(n));
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
  return h("div", { class: "choices" }, h("label", {}, "Test image ", number), random, h("label", {}, h("span", { class: "hidden" }, "Mistakes"), wrong));
}

function savedImages(store, show) {
  const { source } = store.state;
  const buttons = source.examples.map((each) =>
    h("button", { type: "button", class: "thumbnail", title: each.name, onclick: () => show(each) }, picture(each.image, 56, each.name).element),
  );
  return h("div", { class: "choices" }, buttons);
}
