// The end of the forward pass: numbers become probabilities, and the probability of the true class becomes the loss.

import { largest } from "./arrays.js";
import { bar, fixed, h, percent, short } from "./dom.js";
import { explain } from "./explain.js";

/** Return the view of softmax and cross-entropy. */
export function softmaxStage(store) {
  const { network, trace } = store.state;
  const z = trace.outputs.data;
  const top = Math.max(...z);
  const powers = Array.from(z, (value) => Math.exp(value - top));
  const total = powers.reduce((a, b) => a + b, 0);
  const shares = trace.probabilities.data;
  const element = h("article", { class: "softmax" });
  const steps = h("div", { class: "steps" });
  const rows = Array.from(z, (_, k) => {
    const cells = [
      h("th", { scope: "row" }, network.classes[k]),
      number(fixed(z[k], 3)),
      barCell(z[k] / largest(z), z[k] < 0 ? "below" : "above"),
      number(powerText(powers[k])),
      barCell(powers[k], "ink"),
      number(percent(shares[k])),
      barCell(shares[k], "share"),
    ];
    return h(
      "tr",
      {
        "data-class": k,
        "data-share": shares[k],
        tabindex: "0",
        class: k === trace.label ? "label" : null,
        onpointerenter: () => show(k),
        onfocus: () => show(k),
      },
      cells,
    );
  });
  const heads = ["class", "Z", "exp(Z − max Z)", "divided by the sum"];
  function show(k) {
    rows.forEach((row, each) => row.classList.toggle("marked", each === k));
    steps.replaceChildren(...written({ name: network.classes[k], z: z[k], top, power: powers[k], total, share: shares[k] }));
    steps.dataset.total = powers[k] / total;
    element.dataset.class = k;
  }
  show(trace.label);
  element.append(
    h("h2", {}, "softmax: from numbers to probabilities"),
    h(
      "div",
      { class: "beside" },
      h(
        "div",
        { class: "scrolled" },
        h(
          "table",
          { class: "numbers bars-table" },
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              heads.map((name, k) => h("th", { colspan: k ? 2 : 1 }, name)),
            ),
          ),
          h("tbody", {}, rows),
          h(
            "tfoot",
            {},
            h(
              "tr",
              {},
              h("th", { scope: "row" }, "sum"),
              h("td", { colspan: 2 }),
              number(fixed(total)),
              h("td"),
              number(percent(shares.reduce((a, b) => a + b, 0))),
              h("td"),
            ),
          ),
        ),
      ),
      h("div", { class: "one" }, steps, lossOf(network.classes[trace.label], shares[trace.label], trace.loss)),
    ),
    explain({
      equations: ["softmax", "loss"],
      note: "The largest Z is subtracted first: it cancels in the quotient, and no power can overflow.",
      shapes: [
        ["Z", `K = ${z.length}`],
        ["Ŷ", `K = ${z.length}, sum 1`],
        ["J", "one number"],
      ],
      codes: [
        ["softmax", network.code.softmax],
        ["the loss and its gradient", network.code.loss],
      ],
    }),
  );
  return element;
}

function powerText(power) {
  return power < 0.0001 ? short(power) : fixed(power);
}

function number(text) {
  return h("td", {}, text);
}

function barCell(share, role) {
  return h("td", { class: "bar-cell" }, bar(`bar ${role}`, Math.abs(share)));
}

function written({ name, z, top, power, total, share }) {
  const text = powerText(power);
  return [
    h("h3", {}, `Class ${name}`),
    h("p", { class: "total" }, `exp( ${fixed(z, 3)} − ${top < 0 ? `(${fixed(top, 3)})` : fixed(top, 3)} ) = ${text}`),
    h("p", { class: "total" }, `${text} / ${fixed(total)} = `, h("strong", {}, percent(power / total))),
    h("p", { class: "caption" }, "The package computed ", h("output", { class: "value", "data-value": share }, fixed(share, 6))),
  ];
}

function lossOf(name, share, loss) {
  return h(
    "div",
    { class: "loss", "data-loss": loss },
    h("h3", {}, `Loss for the label ${name}`),
    h("p", { class: "total" }, `J = −log( ${fixed(share, 6)} ) = `, h("strong", {}, fixed(loss))),
    h("p", { class: "caption" }, "0 if the network is certain of it, and without a limit as its probability goes to 0."),
  );
}
