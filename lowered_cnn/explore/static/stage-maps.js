// Any other stage: its output beside its input, cell by cell.

import { h, short, stepper, times } from "./dom.js";
import { explain } from "./explain.js";
import { equationsOf } from "./equations.js";
import { fitted, Grid } from "./grid.js";
import { channel, heatOf, legend } from "./maps.js";
import { largest } from "./arrays.js";
import { inputOf, outputOf } from "./source.js";

/** Return the view of a stage that is shown as its input and its output. */
export function mapStage(store, stage) {
  const { trace } = store.state;
  const x = inputOf(trace, stage.name);
  const y = outputOf(trace, stage.name);
  const pointed = { channel: 0, ...store.state.pointed[stage.name] };
  const same = times(x.shape) === times(y.shape);
  const channels = y.shape.length === 3 ? y.shape[0] : 1;
  const note = h("p", { class: "total" });
  const side = Math.min(360, document.getElementById("main").clientWidth - 48);
  const grid = (array, name, c) => {
    const { rows, cols, value } = channel(array, c);
    const each = new Grid({
      rows,
      cols,
      value,
      heat: heatOf(array),
      label: `${name} of ${stage.name}`,
      point: same ? (r, k) => link(r, k) : null,
      describe: (r, k) => `${name} at ${r}, ${k}: ${short(value(r, k))}`,
      cell: fitted(rows, cols, side, side),
    });
    return { each, value };
  };
  const before = grid(x, "X", Math.min(pointed.channel, (x.shape.length === 3 ? x.shape[0] : 1) - 1));
  const after = grid(y, "Y", pointed.channel);
  function link(r, k) {
    const mark = [{ rows: [r, r + 1], cols: [k, k + 1], role: "result" }];
    before.each.mark(mark);
    after.each.mark(mark);
    note.replaceChildren(`${short(before.value(r, k))} becomes `, h("strong", {}, short(after.value(r, k))));
  }
  const choose = (k) => {
    store.state.pointed[stage.name] = { channel: k };
    store.set({ trace: { ...trace } });
  };
  return h(
    "article",
    {},
    h("h2", {}, `${stage.name}: ${stage.layer}`),
    h("div", { class: "tools" }, channels > 1 ? stepper({ label: "Channel", count: channels, value: pointed.channel, change: choose }).element : null, legend(largest(y.data))),
    h(
      "div",
      { class: "maps" },
      h("figure", { class: "map" }, h("figcaption", {}, h("strong", {}, "Input"), ` ${times(x.shape)}`), before.each.element),
      h("figure", { class: "map" }, h("figcaption", {}, h("strong", {}, "Output"), ` ${times(y.shape)}`), after.each.element),
    ),
    note,
    explain({ equations: equationsOf(stage), note: stage.equation, shapes: [["X", times(x.shape)], ["Y", times(y.shape)]], codes: [[stage.name, stage.code.forward]] }),
  );
}
