// The page: it asks for a network, shows an image to it, and switches between the views.

import { argmax } from "./arrays.js";
import { backwardView } from "./backward.js";
import { isDark, themeChanged } from "./colour.js";
import { announce, h, percent } from "./dom.js";
import { forwardView } from "./forward.js";
import { inputPanel } from "./input.js";
import { ledgerView } from "./ledger.js";
import { nudgeView } from "./nudge.js";
import { sandboxView } from "./sandbox.js";
import { openSource, predicted } from "./source.js";
import { SOFTMAX } from "./stages.js";
import { createStore } from "./store.js";
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
const next = {}; // what to explore next: what is shown, and the network that it is shown to
let exploring = null;

/**
 * Explore an image with its label, a test image by its number, or a drawing, with the network at hand or another one:
 * one at a time; of those that wait, only the last one counts.
 */
function explore(store, { network, ...shown }) {
  if (network) next.network = network;
  if (Object.keys(shown).length) next.shown = shown;
  exploring ??= exploreAll(store);
  return exploring;
}

async function exploreAll(store) {
  main.ariaBusy = "true";
  while (next.network || next.shown) {
    const { network = store.state.network, shown = store.state } = next;
    Object.assign(next, { network: undefined, shown: undefined });
    await exploreOne(store, network, shown).catch(fail);
  }
  main.ariaBusy = "false";
  exploring = null;
}

/** Show what the network says, of a drawing at once, and then the trace. */
async function exploreOne(store, network, { drawing, image, number, label }) {
  const { source } = store.state;
  const { step } = network;
  const found = drawing ? await source.predict({ drawing, step }) : image ? { image, number, label } : await source.example(number);
  found.label ??= argmax(found.probabilities.data);
  if (drawing) store.set({ number: undefined, ...found });
  const trace = await source.trace({ image: found.image, label: found.label, step });
  store.set({ number: undefined, ...found, network, step, trace, probabilities: trace.probabilities });
  announce(`${network.classes[predicted(trace)]}, ${percent(Math.max(...trace.probabilities.data))}`);
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
  document.querySelector("#tabs [aria-current]").scrollIntoView({ block: "nearest", inline: "center" });
  document.title = `${view.title}: ${store.state.network.name}, lowered_cnn explorer`;
  leave();
  main.className = view.name;
  leave = view.show(store, main) ?? (() => {});
}

function switchTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
}

function showTheme() {
  document.getElementById("theme").setAttribute("aria-pressed", String(isDark()));
  themeChanged();
}

async function start() {
  const source = openSource();
  const network = await source.network();
  const store = createStore({
    source,
    network,
    step: network.step,
    image: null,
    number: network.test.hardest,
    label: 0,
    probabilities: null,
    trace: null,
    stage: network.stages[0].name,
    pointed: {},
  });
  store.explore = (what) => explore(store, what);
  document.getElementById("subject").textContent = network.name;
  document.getElementById("subject").after(stepMarker(store));
  document.getElementById("tabs").append(...VIEWS.map(({ name, title }) => h("a", { href: `#${name}` }, title)));
  document.getElementById("input").append(inputPanel(store));
  document.getElementById("theme").addEventListener("click", switchTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();
  addEventListener("hashchange", () => open(store));
  store.explore(source.live ? { number: network.test.hardest } : source.examples[0]);
  await autostart(store);
  open(store);
}

start().catch(fail);
