// The page: it asks for a network, shows an image to it, and switches between the views.

import { argmax } from "./arrays.js";
import { predicted, openSource } from "./source.js";
import { announce, h, percent } from "./dom.js";
import { createStore } from "./store.js";
import { backwardView } from "./backward.js";
import { forwardView, SOFTMAX } from "./forward.js";
import { inputPanel } from "./input.js";
import { isDark, themeChanged } from "./colour.js";
import { ledgerView } from "./ledger.js";
import { nudgeView } from "./nudge.js";
import { sandboxView } from "./sandbox.js";
import { autostart, stepMarker, trainingView } from "./training.js";

const VIEWS = [
  { name: "forward", title: "Forward", show: forwardView },
  { name: "backward", title: "Backward", show: backwardView },
  { name: "nudge", title: "Do not believe it", show: nudgeView },
  { name: "sandbox", title: "Sandbox", show: sandboxView },
  { name: "training", title: "Training", show: trainingView },
  { name: "ledger", title: "Ledger", show: ledgerView },
];

const main = document.getElementById("main");
let leave = () => {};
let asked = 0;

/** Explore an image, a drawing or, by its number, a test image: the network's answer first, then its trace for the label. */
async function explore(store, { image, drawing, label, number: example }) {
  const turn = ++asked;
  const { source, network, step } = store.state;
  const number = network.step === undefined ? undefined : step;
  main.ariaBusy = "true";
  try {
    if (!image && !drawing) ({ image, label } = await source.example(example));
    if (turn !== asked) return;
    const answer = image && label !== undefined && store.state.image === image ? store.state : await source.predict({ image, drawing, step: number });
    if (turn !== asked) return;
    const chosen = label ?? argmax(answer.probabilities.data);
    store.set({ image: image ?? answer.image, probabilities: answer.probabilities, label: chosen });
    const trace = await source.trace({ image: store.state.image, label: chosen, step: number });
    if (turn !== asked) return;
    store.set({ trace, probabilities: trace.probabilities });
    announce(`${network.classes[predicted(trace)]}, ${percent(Math.max(...trace.probabilities.data))}`);
  } catch (error) {
    if (turn === asked) fail(error);
  } finally {
    if (turn === asked) main.ariaBusy = "false";
  }
}

function fail(error) {
  const line = h("p", { class: "failure", role: "alert" }, error.message);
  document.querySelector(".failure")?.remove();
  main.prepend(line);
  setTimeout(() => line.remove(), 8000);
}

function open(store) {
  const [name, part] = location.hash.slice(1).split("/");
  const view = VIEWS.find((each) => each.name === name) ?? VIEWS[0];
  const stages = [...store.state.network.stages.map((stage) => stage.name), SOFTMAX];
  store.state.stage = stages.find((stage) => encodeURIComponent(stage) === part) ?? store.state.stage;
  for (const tab of document.querySelectorAll("#tabs a")) {
    if (tab.hash === `#${view.name}`) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  leave();
  main.className = view.name;
  leave = view.show(store, main) ?? (() => {});
}

function switchTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  themeChanged();
}

async function start() {
  const source = openSource();
  const network = await source.network();
  const store = createStore({ source, network, image: null, label: 0, probabilities: null, trace: null, step: network.step, stage: network.stages[0].name, pointed: {} });
  store.explore = (what) => explore(store, what);
  document.getElementById("subject").textContent = network.name;
  document.getElementById("subject").after(stepMarker(store));
  document.getElementById("tabs").append(...VIEWS.map(({ name, title }) => h("a", { href: `#${name}` }, title)));
  document.getElementById("input").append(inputPanel(store, store.explore));
  document.getElementById("theme").addEventListener("click", switchTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themeChanged);
  addEventListener("hashchange", () => open(store));
  store.explore(source.live ? { number: network.test.hardest } : source.examples[0]);
  await autostart(store);
  open(store);
}

start().catch(fail);
