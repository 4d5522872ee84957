// Where the backward pass starts: the probabilities, the true label, and their difference.

import { largest, largestOnes } from "./arrays.js";
import { namedNumber, precise } from "./backward-parts.js";
import { bar, h, percent, short, tableHead } from "./dom.js";
import { equation } from "./equations.js";
import { explain } from "./explain.js";
import { relabel } from "./input.js";

const BACKWARD_MOST_CLASSES = 20;

/** Return the view of softmax and cross-entropy, backward. */
export function backwardSoftmax(store) {
  const { network, trace } = store.state;
  const { label, loss, probabilities, doutputs } = trace;
  const most = largest(doutputs.data);
  const sum = doutputs.data.reduce((total, value) => total + value, 0);
  const rows = backwardClasses(trace).map((k) => backwardClassRow(store, k, most));
  const hidden = network.classes.length - rows.length;
  return h(
    "article",
    {},
    h("h2", {}, "The backward pass starts where the network is wrong"),
    h(
      "p",
      {},
      "Choose the true label Y. All that then flows back through the network is the difference between what it said and ",
      "what it should have said: below zero at the true class, whose output should grow, and above zero at all others, ",
      "which should shrink.",
    ),
    equation("dsoftmax"),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        { class: "start" },
        tableHead(["class", "Ŷ, what it said", "Y, the truth", "dZ = Ŷ − Y"]),
        h("tbody", {}, rows),
      ),
    ),
    sureNote(network, trace),
    hidden ? h("p", { class: "caption" }, `The ${rows.length} classes with the largest dZ; ${hidden} more are not shown.`) : null,
    h(
      "p",
      { class: "total" },
      `J = −log Ŷ[${network.classes[label]}] = −log ${precise(probabilities.data[label])} = `,
      h("strong", {}, namedNumber("loss", loss)),
    ),
    h("p", { class: "caption" }, `dZ sums to ${short(Math.abs(sum) < 1e-6 ? 0 : sum)}: what one class is to gain, the others are to lose.`),
    explain({
      equations: ["loss", "softmax"],
      shapes: [
        ["Ŷ, Y, dZ", `classes = ${network.classes.length}`],
        ["J", "one number"],
      ],
      codes: [
        ["The loss and its gradient", network.code.loss],
        ["Softmax", network.code.softmax],
      ],
    }),
  );
}

/** Return what to do if there is next to nothing to see, because the label is what the network is sure of. */
function sureNote(network, { label, probabilities }) {
  if (probabilities.data[label] < 0.99) return null;
  return h(
    "p",
    { class: "note" },
    `The network is sure of ${network.classes[label]}, so next to nothing flows back. `,
    "To see what it would learn from a mistake, choose another label.",
  );
}

function backwardClasses({ doutputs, label }) {
  const sizes = Array.from(doutputs.data, (value, k) => (k === label ? Infinity : Math.abs(value)));
  return largestOnes(sizes, BACKWARD_MOST_CLASSES);
}

function backwardClassRow(store, k, most) {
  const { network, source, trace } = store.state;
  const [said, dz] = [trace.probabilities.data[k], trace.doutputs.data[k]];
  const side = `signed-bar ${dz < 0 ? "below" : "above"}`;
  const choose = h("input", {
    type: "radio",
    name: "true-label",
    value: k,
    checked: k === trace.label,
    disabled: !source.live,
    "aria-label": `${network.classes[k]} is the true label`,
    onchange: async () => {
      await relabel(store, k);
      document.querySelector(`input[name="true-label"][value="${k}"]`)?.focus();
    },
  });
  return h(
    "tr",
    { "data-class": k, class: k === trace.label ? "chosen" : null },
    h("th", { scope: "row" }, network.classes[k]),
    h("td", {}, h("span", { class: "pair" }, bar("share-bar accent", said), h("span", {}, percent(said)))),
    h("td", {}, h("label", {}, choose, k === trace.label ? " 1" : " 0")),
    h("td", {}, h("span", { class: "pair" }, bar(side, Math.abs(dz) / most), namedNumber(`doutput-${k}`, dz))),
  );
}
