// The training: its curves while it runs, its controls, and the network as it was after each saved step.

import { Chart, smoothed } from "./chart.js";
import { announce, grouped, h, percent, short } from "./dom.js";
import { explain } from "./explain.js";
import { thumbnails } from "./maps.js";

const TRAINING_PAUSE = 250; // milliseconds between two questions while it runs
const TRAINING_REST = 1000; // milliseconds between two looks at the newest network, which cost the training time
const TRAINING_SMOOTHING = 0.9;
const TRAINING_COLOURS = ["c1", "c2", "c3", "c4", "c5", "c6"];

/** What is known of the training: it grows with each answer of the server, and outlives the view. */
class TrainingLog {
  constructor() {
    this.follow = true;
    this.clear();
  }

  clear() {
    Object.assign(this, { state: null, records: [], norms: new Map(), steps: [], total: 0, epochs: 1, error: null, pace: [] });
  }

  get last() {
    return this.records.at(-1)?.step ?? 0;
  }

  /** The newest saved step that is worth a look; while steps are taken, the roundest of the last ones, which is kept longest. */
  get newest() {
    if (this.state !== "running") return this.steps.at(-1);
    const round = (step) => (step === 0 ? 0 : step & -step);
    return this.steps.slice(-Math.ceil(this.steps.length / 4)).reduceRight((best, step) => (round(step) > round(best) ? step : best));
  }

  get underWay() {
    return this.state === "running" || this.state === "paused";
  }

  add(answer) {
    const last = this.last;
    this.records.push(...answer.records.filter((record) => record.step > last));
    for (const { step, norms } of answer.norms) this.norms.set(step, norms);
    Object.assign(this, {
      state: answer.state,
      error: answer.error ?? null,
      total: answer.steps_total,
      epochs: answer.epochs,
      steps: answer.steps,
    });
    if (this.state === "running") this.pace = [...this.pace.slice(-40), [performance.now(), this.last]];
    else this.pace = [];
  }

  /** The seconds that are left, or null while that is not known. */
  get left() {
    const [[begun, first], [now, last]] = [this.pace[0] ?? [0, 0], this.pace.at(-1) ?? [0, 0]];
    return last > first ? (((now - begun) / 1000) * (this.total - last)) / (last - first) : null;
  }
}

function trainingLog(store) {
  return (store.state.training ??= new TrainingLog());
}

/** Start a training at once if the page was opened without a run. */
export async function autostart({ state: { source, network } }) {
  if (!source.live || !network.autostart) return;
  location.hash = "#training";
  await source.control({ action: "start" }).catch(() => {}); // another page was faster
}

/** Return the line that says which step is shown, when it is not the last one. */
export function stepMarker(store) {
  const link = h("a", { class: "step-marker", href: "#training", hidden: true });
  store.on(["step", "network", "lastStep"], () => {
    const { step, network } = store.state;
    const lastStep = store.state.lastStep ?? network.steps?.at(-1);
    link.hidden = lastStep === undefined || step === lastStep;
    link.dataset.shownStep = step;
    link.textContent = `after step ${grouped(step ?? 0)} of ${grouped(lastStep ?? 0)}`;
  });
  return link;
}

/** Show the network of a saved step everywhere on the page, unless another one is wanted before it is there. */
async function showStep(store, step) {
  store.state.wantedStep = step;
  const network = await store.state.source.network(step);
  if (store.state.wantedStep === step) await store.explore({ network });
}

/** Show the view in an element; returns what ends it. */
export function trainingView(store, element) {
  const { source } = store.state;
  const log = trainingLog(store);
  const view = new TrainingView(store, log);
  element.replaceChildren(view.element);
  let timer = 0;
  let left = false;
  let asking = false;
  const later = (milliseconds) => {
    clearTimeout(timer);
    if (!left) timer = setTimeout(ask, milliseconds);
  };
  async function ask() {
    if (left || asking || document.hidden) return;
    asking = true;
    try {
      let answer = await source.training(log.last);
      if (answer.records.length === 0 && answer.steps.at(-1) < log.last && answer.state === "running") {
        log.clear(); // another page started anew
        answer = await source.training(0);
      }
      if (left) return;
      log.add(answer);
      view.update();
      view.followed();
      if (answer.more) later(0);
      else if (log.underWay) later(log.state === "running" ? TRAINING_PAUSE : 4 * TRAINING_PAUSE);
    } catch (error) {
      view.fail(error);
      later(8 * TRAINING_PAUSE);
    } finally {
      asking = false;
    }
  }
  view.control = async (request) => {
    try {
      const answer = await source.control(request);
      if (request.action === "start") {
        log.clear();
        log.follow = true;
      }
      log.add(answer);
      view.fail(null);
      view.update();
      later(0);
    } catch (error) {
      view.fail(error);
    }
  };
  const shown = () => later(0);
  document.addEventListener("visibilitychange", shown);
  const ends = store.on(["step", "network", "image", "probabilities"], () => view.moved());
  ask();
  return () => {
    left = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", shown);
    ends();
    view.end();
  };
}

/** The elements of the view. */
class TrainingView {
  constructor(store, log) {
    Object.assign(this, { store, log, failure: null, answers: new Map() });
    const read = (step) => this.read(step);
    this.charts = {
      loss: new Chart({ title: "Loss", unit: "per batch, and its running mean; dots: dev split", name: "loss", log: true, point: read }),
      accuracy: new Chart({
        title: "Accuracy",
        unit: "of the batches (running mean); dots: dev split",
        name: "accuracy",
        from: 0,
        top: 1,
        format: trainingShare,
        point: read,
      }),
      rate: new Chart({ title: "Learning rate", name: "learning-rate", from: 0, point: read }),
      speed: new Chart({ title: "Throughput", unit: "images per second", name: "throughput", from: 0, format: grouped, point: read }),
      norms: new Chart({
        title: "Gradient norms",
        unit: "‖dW‖ of each weight, over a few fixed examples",
        name: "norms",
        log: true,
        point: read,
      }),
      answers: new Chart({
        title: "This image",
        unit: "its probabilities, step by step",
        name: "answers",
        from: 0,
        top: 1,
        format: trainingShare,
        point: read,
      }),
    };
    this.bars = h("ol", { class: "norms", "aria-label": "Gradient norms of all parameters" });
    this.filters = h("div", {});
    this.controls = trainingControls(this);
    this.slider = trainingSlider(this);
    this.normsOf = h("span", {});
    const { loss, accuracy, rate, speed, norms, answers } = this.charts;
    this.detail = h(
      "figure",
      { class: "chart" },
      h("figcaption", {}, h("strong", {}, "Gradient norms"), " of all parameters, ", this.normsOf),
      this.bars,
    );
    this.look = h("figure", { class: "chart" }, h("figcaption", {}, h("strong", {}, "First filters"), " at the step shown"), this.filters);
    this.element = h(
      "article",
      { class: "training-view" },
      h("h2", {}, "Training: each step moves every weight against its gradient"),
      this.controls.element,
      this.slider.element,
      h(
        "div",
        { class: "charts" },
        loss.element,
        accuracy.element,
        norms.element,
        this.detail,
        answers.element,
        rate.element,
        speed.element,
        this.look,
      ),
      this.explained(),
    );
    this.update();
  }

  explained() {
    const { network } = this.store.state;
    return explain({
      equations: ["sgd", "tree"],
      note: "A step adds up the gradients of the batch's shards, and moves each weight against the sum.",
      codes: [
        ["the step", network.code.sgd],
        ["who adds which shards", network.code["shard tree"]],
      ],
    });
  }

  /** Draw everything again after an answer. */
  update() {
    const { log, charts, store } = this;
    const lastStep = log.steps.at(-1);
    if (lastStep !== undefined) store.set({ lastStep });
    this.controls.update();
    this.slider.update();
    const to = Math.max(log.total, log.last, 1);
    const curve = (name, colour, of, more = {}) => ({
      name,
      colour,
      points: log.records.filter((r) => of(r) !== null).map((r) => [r.step, of(r)]),
      ...more,
    });
    const loss = curve("batch", "c1", (r) => r.loss, { faint: true });
    const accuracy = curve("batch", "c1", (r) => r.train_accuracy);
    const marker = store.state.step;
    const draw = (chart, series) => chart.draw({ series, to, marker: log.steps.length > 1 ? marker : undefined, read: chart.given.read });
    draw(charts.loss, [
      loss,
      { ...loss, name: "running mean", faint: false, points: smoothed(loss.points, TRAINING_SMOOTHING) },
      curve("dev", "c2", (r) => r.dev_loss, { dots: true }),
    ]);
    draw(charts.accuracy, [
      { ...accuracy, name: "running mean", points: smoothed(accuracy.points, TRAINING_SMOOTHING) },
      curve("dev", "c2", (r) => r.dev_accuracy, { dots: true }),
    ]);
    draw(charts.rate, [curve("learning rate", "c3", (r) => r.learning_rate)]);
    draw(charts.speed, [curve("images/s", "c4", (r) => r.images_per_second)]);
    const norms = [...log.norms].sort(([a], [b]) => a - b);
    const names = Object.keys(norms[0]?.[1] ?? {}).filter((name) => /weight$/.test(name));
    draw(
      charts.norms,
      names.map((name, k) => ({
        name: name.replace(/\.weight$/, ""),
        colour: TRAINING_COLOURS[k % 6],
        dashed: k >= 6,
        points: norms.map(([step, each]) => [step, each[name]]),
      })),
    );
    for (const chart of [charts.norms.element, this.detail]) chart.hidden = names.length === 0;
    this.drawBars();
    this.drawAnswers();
    this.drawFilters();
  }

  /** Say in all charts what was at a step. */
  read(step) {
    for (const chart of Object.values(this.charts)) chart.read(step);
  }

  /** Follow what other parts of the page changed: the step, or the image. */
  moved() {
    this.update();
    if (this.answersOf !== this.store.state.image && !this.log.underWay) this.ask();
  }

  /** While following, show the newest saved step once it is another one, and then ask what it says of the image. */
  async followed() {
    const { store, log } = this;
    if (this.following) return;
    this.following = true;
    try {
      const { step, source } = store.state;
      const wanted = log.follow ? log.newest : (log.steps.findLast((each) => each <= step) ?? log.steps[0]);
      if (source.live && wanted !== step) {
        await showStep(store, wanted);
        this.remember();
      }
      if (!log.underWay) await this.ask();
      if (log.underWay) await new Promise((resume) => setTimeout(resume, TRAINING_REST));
    } catch {
      // a step that is no longer kept: the next answer names a newer one
    } finally {
      this.following = false;
    }
    if (!this.ended && log.follow && !log.underWay && log.newest !== store.state.step) await this.followed();
  }

  /** Remember what the network that is shown says of the image. */
  remember() {
    const { step, probabilities, image } = this.store.state;
    if (this.answersOf !== image) this.answers.clear();
    this.answersOf = image;
    this.answers.set(step, probabilities.data);
    this.drawAnswers();
  }

  /** Ask for the image's probabilities at the saved steps that are not known yet. */
  async ask() {
    const { store, log, answers } = this;
    const { source, image } = store.state;
    if (!source.live || !image || this.asking || log.steps.length < 2) return;
    if (this.answersOf !== image) answers.clear();
    this.asking = true;
    this.answersOf = image;
    try {
      for (const step of log.steps) {
        if (answers.has(step)) continue;
        const { probabilities } = await source.predict({ image, step });
        if (this.ended || store.state.image !== image) return;
        answers.set(step, probabilities.data);
      }
      this.drawAnswers();
    } catch {
      // a step that is no longer kept
    } finally {
      this.asking = false;
    }
    if (!this.ended && store.state.image !== image) await this.ask();
  }

  drawAnswers() {
    const { store, answers, charts, log } = this;
    charts.answers.element.hidden = log.steps.length < 2 || !store.state.source.live;
    if (this.answersOf !== store.state.image) answers.clear();
    const known = [...answers].filter(([step]) => log.steps.includes(step)).sort(([a], [b]) => a - b);
    const { classes } = store.state.network;
    const peaks = classes.map((_, k) => Math.max(0, ...known.map(([, shares]) => shares[k])));
    const shown = [...peaks.keys()]
      .sort((a, b) => peaks[b] - peaks[a])
      .slice(0, 4)
      .sort((a, b) => a - b);
    charts.answers.draw({
      series: shown.map((k, place) => ({
        name: classes[k],
        colour: TRAINING_COLOURS[place],
        points: known.map(([step, shares]) => [step, shares[k]]),
        dots: known.length < 12,
      })),
      to: Math.max(log.total, log.last, 1),
      marker: store.state.step,
      read: charts.answers.given.read,
    });
  }

  drawBars() {
    const { log, store } = this;
    const steps = [...log.norms.keys()].sort((a, b) => a - b);
    const step = steps.findLast((each) => each <= (store.state.step ?? Infinity)) ?? steps[0];
    const norms = Object.entries(log.norms.get(step) ?? {});
    this.normsOf.textContent = `after step ${step}; a logarithmic scale`;
    const sizes = norms.map(([, norm]) => norm).filter((norm) => norm > 0);
    const [least, most] = [Math.log10(Math.min(...sizes)), Math.log10(Math.max(...sizes))];
    this.bars.replaceChildren(
      ...norms.map(([name, norm]) => {
        const bar = h("span", { class: "bar" });
        bar.style.setProperty("--share", norm > 0 ? 0.04 + (0.96 * (Math.log10(norm) - least)) / (most - least || 1) : 0);
        return h("li", {}, h("span", { class: "name" }, name), bar, h("span", { class: "share" }, short(norm)));
      }),
    );
  }

  drawFilters() {
    const { network } = this.store.state;
    const stage = network.stages.find((each) => each.view === "conv");
    const weight = stage && network.weights[stage.parameters.find((name) => name.endsWith("weight"))];
    this.look.hidden = !weight;
    if (!weight || this.drawn === weight) return;
    this.drawn = weight;
    const [filters] = weight.shape;
    const [kh, kw] = stage.sweep.kernel;
    const channels = weight.data.length / (filters * kh * kw);
    const first = Float32Array.from(
      { length: filters * kh * kw },
      (_, k) => weight.data[Math.floor(k / (kh * kw)) * channels * kh * kw + (k % (kh * kw))],
    );
    this.filters.replaceChildren(
      thumbnails({ shape: [filters, kh, kw], data: first }, { most: 24, side: 56, label: `Filters of ${stage.name}` }),
    );
  }

  fail(error) {
    this.failure = error?.message ?? null;
    this.controls.update();
  }

  end() {
    this.ended = true;
    for (const chart of Object.values(this.charts)) chart.watch.disconnect();
  }
}

/** Return a share as a percentage, as short as a chart needs it. */
function trainingShare(share) {
  return `${Number((100 * share).toFixed(1))} %`;
}

const TRAINING_STATES = {
  idle: "As it was trained",
  running: "Running",
  paused: "Paused",
  finished: "Finished",
  stopped: "Stopped",
  failed: "Failed",
};

/** Return the buttons, and the line that says how far the training is. */
function trainingControls(view) {
  const { log, store } = view;
  const { source } = store.state;
  const epochs = h("input", { type: "number", min: "1", max: "20", "aria-label": "Epochs" });
  const rate = h("input", {
    type: "number",
    min: "0",
    step: "any",
    placeholder: "as trained",
    class: "rate",
    "aria-label": "Learning rate",
  });
  const button = (text, press) => h("button", { type: "button", onclick: () => view.control(press()) }, text);
  const start = button("Start", () => {
    announce("Training started");
    return {
      action: "start",
      ...(epochs.value ? { epochs: Number(epochs.value) } : {}),
      ...(rate.value ? { learning_rate: Number(rate.value) } : {}),
    };
  });
  const pause = button("Pause", () => ({ action: log.state === "paused" ? "resume" : "pause" }));
  const stop = button("Stop", () => ({ action: "stop" }));
  start.classList.add("primary");
  const badge = h("strong", { class: "badge" });
  const progress = h("progress", { "aria-label": "Steps taken", max: "1", value: "0" });
  const line = h("span", { class: "caption" });
  const failure = h("p", { class: "training-failure", role: "alert" });
  const element = h(
    "section",
    { class: "training-controls", "aria-label": "Training", "data-name": "training" },
    source.live
      ? h("div", { class: "tools" }, start, pause, stop, h("label", {}, "Epochs ", epochs), h("label", {}, "Learning rate ", rate))
      : null,
    h("div", { class: "training-state" }, badge, progress, line),
    failure,
    source.live
      ? h(
          "p",
          { class: "caption" },
          "Start trains a new network of the same model from random weights. A run that was opened stays as it is on disk.",
        )
      : null,
  );
  const update = () => {
    const last = log.records.at(-1);
    Object.assign(element.dataset, { state: log.state ?? "loading", step: log.last, total: log.total });
    badge.textContent = TRAINING_STATES[log.state] ?? "…";
    badge.className = `badge ${log.state}`;
    if (log.total) progress.max = log.total;
    progress.value = log.last;
    const pieces = [`step ${grouped(log.last)} of ${grouped(log.total)}`];
    if (last) pieces.push(`epoch ${last.epoch} of ${log.epochs}`, `${grouped(last.images_per_second)} images/s`);
    if (log.state === "running" && log.left !== null) pieces.push(`about ${trainingDuration(log.left)} left`);
    line.textContent = pieces.join(" · ");
    start.disabled = log.underWay || log.state === null;
    pause.disabled = stop.disabled = !log.underWay;
    pause.textContent = log.state === "paused" ? "Resume" : "Pause";
    epochs.disabled = rate.disabled = log.underWay;
    if (!epochs.value && log.state) epochs.value = String(log.epochs);
    const message = view.failure ?? log.error ?? "";
    failure.hidden = !message;
    if (failure.textContent !== message) failure.textContent = message;
  };
  return { element, update };
}

function trainingDuration(seconds) {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

/** Return the slider over the saved steps, with the switch that follows the newest one. */
function trainingSlider(view) {
  const { log, store } = view;
  const text = h("output", { class: "slider-step" });
  const slider = h("input", { type: "range", min: "0", "aria-label": "Saved step", oninput: () => choose(Number(slider.value)) });
  const follow = h("input", { type: "checkbox", onchange: () => set(follow.checked) });
  let wanted = null;
  const set = (on) => {
    log.follow = on;
    if (on) choose(log.steps.length - 1, true);
    update();
  };
  async function choose(place, following = false) {
    log.follow = following;
    const busy = wanted !== null;
    wanted = log.steps[place];
    update();
    if (busy) return;
    let shown;
    while (shown !== wanted) {
      shown = wanted;
      await showStep(store, shown).catch((error) => view.fail(error));
    }
    wanted = null;
    update();
  }
  const element = h(
    "div",
    { class: "tools saved-steps" },
    h("label", {}, "The network after step ", slider),
    text,
    h("label", {}, follow, " follow the newest"),
  );
  function update() {
    const { step, network, source } = store.state;
    element.hidden = !source.live || log.steps.length < 2;
    const place = log.steps.indexOf(wanted ?? step);
    slider.max = String(Math.max(0, log.steps.length - 1));
    if (place >= 0) slider.value = String(place);
    slider.setAttribute("aria-valuetext", `step ${wanted ?? step}`);
    element.dataset.shownStep = step;
    const { tested, accuracy } = network.test;
    text.textContent = `${grouped(wanted ?? step)} · ${percent(accuracy)} of ${grouped(tested)} test images right`;
    follow.checked = log.follow;
  }
  return { element, update };
}
