// Where the page's numbers come from: the server, or the page itself if it was saved. Both answer the same questions.

import { argmax, pack, revive } from "./arrays.js";

/** Asks the server. */
class Server {
  live = true;

  async ask(path, body) {
    const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const answer = await fetch(`api/${path}`, options);
    const content = await answer.json().catch(() => ({ error: `${answer.status} ${answer.statusText}` }));
    if (!answer.ok) throw new Error(content.error);
    return revive(content);
  }

  network(step) {
    return this.ask(step === undefined ? "network" : `network?step=${step}`);
  }

  example(number) {
    return this.ask(`example/${number}`);
  }

  predict({ image, drawing, step }) {
    return this.ask("predict", drawing ? { drawing: pack(drawing), step } : { image: pack(image), step });
  }

  trace({ image, label, step }) {
    return this.ask("trace", { image: pack(image), label, step });
  }

  nudge({ image, label, step, parameter, index }) {
    return this.ask("nudge", { image: pack(image), label, step, parameter, index });
  }

  /** Return the numbers {parameter, index} that can be nudged for an image; null for all. */
  nudgesOf() {
    return null;
  }

  ledger() {
    return this.ask("ledger");
  }

  training(after) {
    return this.ask(`training?after=${after}`);
  }

  control(request) {
    return this.ask("training", request);
  }
}

/** Answers from what was saved in the page; `examples` are the images it knows, each with one label. */
class Saved {
  live = false;

  constructor(content) {
    Object.assign(this, { content, examples: content.examples });
  }

  at(image) {
    const place = this.examples.findIndex((each) => each.image === image);
    if (place < 0) throw new Error("this page was saved with other images");
    return place;
  }

  async network() {
    return this.content.network;
  }

  async trace({ image }) {
    return this.content.traces[this.at(image)];
  }

  async nudge({ image, parameter, index }) {
    const saved = this.content.nudges[this.at(image)];
    const found = saved.find((each) => each.parameter === parameter && each.index === index);
    if (!found) throw new Error("this page was saved without that weight");
    return found;
  }

  nudgesOf(image) {
    return this.content.nudges[this.at(image)];
  }

  async ledger() {
    return this.content.ledger;
  }

  async training() {
    return this.content.training;
  }
}

/** Return the source of this page. */
export function openSource() {
  const saved = document.getElementById("saved");
  return saved ? new Saved(revive(JSON.parse(saved.textContent))) : new Server();
}

/** Return, of weights or gradients by name, that of a stage's parameter whose name ends with this word. */
export function parameterOf(arrays, stage, word) {
  return arrays[stage.parameters.find((name) => name.endsWith(`.${word}`))];
}

/** Return the input of a stage: its own, or the output of the stage that it names. */
export function inputOf(trace, name) {
  const { x } = trace.stages[name];
  return typeof x === "string" ? outputOf(trace, x) : x;
}

/** Return the output of a stage; "images" is the network's input. */
export function outputOf(trace, name) {
  return name === "images" ? trace.image : trace.stages[name].y;
}

/** Return dJ with respect to the output of a stage. */
export function gradientOf(trace, name) {
  return name === "images" ? trace.dimage : trace.stages[name].dy;
}

/** Return dJ with respect to the input of a stage. */
export function inputGradientOf(trace, name) {
  const { dx } = trace.stages[name];
  return typeof dx === "string" ? gradientOf(trace, dx) : dx;
}

/** Return the most likely class of a trace. */
export function predicted(trace) {
  return argmax(trace.probabilities.data);
}
