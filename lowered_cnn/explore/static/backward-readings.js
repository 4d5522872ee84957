// dX in two readings of the same sum: columns added back into the image (col2im), and dZ under the rotated filter.

import { entry, largest } from "./arrays.js";
import { sumInOrder } from "./backward-matrices.js";
import { backwardRoom, besidePackage, namedGrid, precise, switchOf, TermStrips } from "./backward-parts.js";
import { diverging, ink } from "./colour.js";
import { announce, h, short, stepper, tableHead, times } from "./dom.js";
import { explain } from "./explain.js";
import { cellMark, fitted } from "./grid.js";
import { channel, legend, mapFigure } from "./maps.js";
import { paddedGrid, patchMarks, pixelMark } from "./stage-conv.js";

const PLAYED = 8000; // milliseconds in which all columns are added

/** Return the step in which dcolumns become dX, or in which dX is read off dZ with the rotated filter. */
export function readingsStep(view) {
  const { stage, chosen, gradients, rebuild } = view;
  const { lowering, first } = gradients;
  chosen.pixel ??= pixelUnder(lowering, chosen);
  chosen.channel = Math.min(chosen.channel, lowering.channels - 1);
  const pointing = { tap: lowering.tap(chosen.row).slice(1) };
  const shared = {
    ...view,
    pointing,
    terms: () => gradients.terms(chosen.channel, ...chosen.pixel),
    turnedTerms: () => gradients.turnedTerms(chosen.channel, ...chosen.pixel),
    pick: (changes) => {
      if (changes.pixel && !lowering.inside(...changes.pixel)) return;
      Object.assign(chosen, changes);
      draw();
    },
    pointTap: (tap) => {
      pointing.tap = tap;
      draw();
    },
  };
  const reading = (chosen.reading === "col2im" ? additionReading : rotatedReading)(shared);
  const result = resultGrid(shared);
  const terms = termTable(shared);
  function draw() {
    reading.draw();
    result.draw();
    terms.draw();
  }
  draw();
  return [
    h(
      "p",
      {},
      "Each pixel was copied into several columns, once for each window that lay over it. So its gradient is the sum of ",
      "all that comes back for these copies. There are two ways to read this one sum:",
    ),
    h(
      "div",
      { class: "tools" },
      switchOf(
        "Reading",
        [
          ["col2im", "Columns added back: col2im"],
          ["rotated", "dZ under the rotated filter"],
        ],
        chosen.reading,
        (value) => rebuild({ reading: value }),
      ),
      stepper({
        label: "Channel",
        count: lowering.channels,
        value: chosen.channel,
        name: (c) => String(first + c),
        change: (c) => rebuild({ channel: c }),
      }).element,
      legend(largest(gradients.packageDx.data), "dX"),
    ),
    ...reading.elements,
    h("h3", {}, "The pixel, and all that comes back for it"),
    h(
      "div",
      { class: "maps" },
      mapFigure("dX", `[${first + chosen.channel}], complete, as the package computed it`, result.grid, "result"),
      terms.element,
    ),
    gradients.asksForNothing
      ? h(
          "p",
          { class: "note" },
          "This is the first stage: in training the package skips its dX, since nobody asks for the gradient of the ",
          "image. For this page it computes it anyway.",
        )
      : null,
    explain({
      equations: chosen.reading === "col2im" ? ["dx"] : [isPlain(lowering) ? "flipped" : "flipped_window", "dx"],
      note: chosen.reading === "col2im" ? null : strideNote(lowering),
      shapes: [
        ["dcolumns", `C KH KW × OH OW = ${times(lowering.rows, lowering.positions)}`],
        ["dX", `C × H × W = ${times(stage.input_shape)}`],
      ],
      codes: [
        ["col2im", view.store.state.network.code.col2im],
        [`${stage.kind}, backward`, stage.code.backward],
      ],
    }),
  ].filter(Boolean);
}

/** Return the pixel under the tap and the position that were pointed at, or the one in the middle for one in the padding. */
function pixelUnder(lowering, { row, position }) {
  const [, y, x] = lowering.pixel(row, position);
  return lowering.inside(y, x) ? [y, x] : [Math.floor(lowering.height / 2), Math.floor(lowering.width / 2)];
}

/** Return the map of dX, in which a pixel is chosen. */
function resultGrid({ gradients, chosen, pick }) {
  const { lowering, packageDx, first } = gradients;
  const { value } = channel(packageDx, chosen.channel);
  const grid = namedGrid({
    name: "dx",
    rows: lowering.height,
    cols: lowering.width,
    value,
    magnitude: largest(packageDx.data),
    label: `dX, channel ${first + chosen.channel}`,
    point: (y, x) => pick({ pixel: [y, x] }),
    describe: (y, x) => `dX at ${y}, ${x}: ${short(value(y, x))}`,
  });
  const draw = () => {
    const [y, x] = chosen.pixel;
    grid.mark([cellMark([y, x], "result")]);
  };
  return { grid, draw };
}

/** Return the table of the terms of a pixel in both readings, with their sums beside the package's number. */
function termTable({ gradients, chosen, terms, turnedTerms, pointing }) {
  const { lowering, packageDx, first } = gradients;
  const body = h("tbody", {});
  const sum = h("tr", { class: "sum-row" });
  const head = h("p", { class: "total" });
  const beside = h("div", {});
  const element = h(
    "div",
    { class: "pixel-terms" },
    head,
    beside,
    h(
      "div",
      { class: "scroll short", tabindex: "0", role: "group", "aria-label": "Terms of the pixel" },
      h(
        "table",
        {},
        tableHead(["position", "tap", "col2im: dcolumns", "rotated: Σ dZ · W"]),
        body,
        h("tfoot", {}, sum),
      ),
    ),
  );
  const rowClass = ({ tap, position }) => {
    if (chosen.reading === "col2im") return position === chosen.position ? "chosen" : position >= chosen.added ? "later" : null;
    return tap.join() === pointing.tap.join() ? "chosen" : null;
  };
  const draw = () => {
    const [y, x] = chosen.pixel;
    const found = terms();
    const around = turnedTerms();
    const [added, turned] = [sumInOrder(found.map((each) => each.value)), sumInOrder(around)];
    const own = channel(packageDx, chosen.channel).value(y, x);
    body.replaceChildren(
      ...found.map((term, k) =>
        h(
          "tr",
          { class: rowClass(term) },
          [term.place.join(", "), term.tap.join(", "), precise(term.value), precise(around[k])].map((cell) => h("td", {}, cell)),
        ),
      ),
    );
    sum.replaceChildren(h("td", { colspan: "2" }, "sum"), h("td", {}, precise(added)), h("td", {}, precise(turned)));
    head.replaceChildren(
      `Pixel ${y}, ${x} of channel ${first + chosen.channel} was read `,
      h(
        "strong",
        {},
        h("output", { "data-name": "count", "data-value": found.length }, String(found.length)),
        found.length === 1 ? " time" : " times",
      ),
      found.length
        ? `, from ${readerText(found[0])} to ${readerText(found.at(-1))}.`
        : ": no window lies over it, so its gradient is 0.",
    );
    beside.replaceChildren(besidePackage("dx", added, own, largest(packageDx.data), ["rotated filter", "dx-rotated", turned]));
  };
  return { element, draw };
}

function readerText({ place, tap }) {
  return `position ${place.join(", ")} under tap ${tap.join(", ")}`;
}

/** The first reading: columns are added into the image, one after another. */
function additionReading(shared) {
  const { gradients, chosen, terms, pick } = shared;
  const { lowering, dcolumns, packageDx, first } = gradients;
  const { positions, kh, kw, height, width } = lowering;
  const c = chosen.channel;
  chosen.added = Math.min(chosen.added ?? positions, positions);
  const sums = { shape: [1, height, width], data: new Float32Array(height * width) };
  const counts = { shape: [1, height, width], data: new Float32Array(height * width) };
  const full = new ColumnAddition(lowering, c, dcolumns);
  full.add(positions, sums, counts);
  const mostRead = largest(counts.data);
  const local = (tap, p) => entry(dcolumns, c * kh * kw + tap, p);
  const cell = fitted(kh * kw, positions, backwardRoom(), 240, 0.4, 12);
  const columns = namedGrid({
    name: "columns",
    rows: kh * kw,
    cols: positions,
    value: local,
    magnitude: largest(dcolumns.data),
    label: `dcolumns, channel ${first + c}`,
    point: (tap, p) => pick({ position: p, tap }),
    describe: (tap, p) =>
      `column of position ${lowering.place(p).join(", ")}, tap ${lowering.tap(tap).slice(1).join(", ")}: ${short(local(tap, p))}`,
    width: cell * positions,
    height: cell * kh * kw + 1,
  });
  const one = namedGrid({
    name: "column",
    rows: kh,
    cols: kw,
    value: (a, b) => local(a * kw + b, chosen.position),
    magnitude: largest(dcolumns.data),
    label: "One column, as a window",
    width: 180,
    point: (a, b) => {
      const [, y, x] = lowering.pixel(lowering.row(c, a, b), chosen.position);
      pick({ pixel: [y, x] });
    },
    describe: (a, b) => `tap ${a}, ${b}: ${short(local(a * kw + b, chosen.position))}`,
  });
  const room = backwardRoom();
  const side = Math.min(300, room < 560 ? room : (room - 260) / 2); // the column and both maps stand in one line, if they can
  const map = (name, x, heat, label, text) =>
    paddedGrid(lowering, x, 0, {
      name,
      label,
      heat,
      side,
      point: (y, k) => pick({ pixel: [y, k] }),
      describe: (y, k) =>
        lowering.inside(y, k) ? `${text} at ${y}, ${k}: ${short(channel(x, 0).value(y, k))}` : "padding: what falls here is dropped",
    });
  const image = map("added", sums, diverging(largest(packageDx.data)), "What has been added to the image so far", "sum");
  const reads = map("counts", counts, ink(mostRead), "How often each pixel was read", "read");
  const player = columnPlayer(
    positions,
    () => chosen.added,
    (added) => pick({ added, position: Math.max(0, added - 1) }),
  );
  const titles = [h("span", {}), h("span", {})];
  const draw = () => {
    const { added, position, pixel } = chosen;
    full.add(added, sums, counts);
    player.draw();
    image.draw();
    reads.draw();
    one.draw();
    for (const grid of [image, reads]) grid.mark([...patchMarks(lowering, position), pixelMark(lowering, ...pixel, "result")]);
    const own = terms();
    columns.mark([
      { rows: [0, kh * kw], cols: [position, position + 1], role: "patch" },
      ...own.map((each) => cellMark([each.row - c * kh * kw, each.position], "cursor")),
    ]);
    const here = own.find((each) => each.position === position);
    one.mark(here ? [cellMark(here.tap, "cursor")] : []);
    titles[0].textContent = `of position ${lowering.place(position).join(", ")}`;
    titles[1].textContent = `after ${added} of ${positions} columns`;
  };
  const elements = [
    h(
      "p",
      {},
      "Take the columns one by one. Each is a window of KH × KW numbers for each channel; put it where im2col had read ",
      "it, and add. Where windows overlap, the numbers add up: that is all of col2im.",
    ),
    h(
      "figure",
      { class: "map wide" },
      h(
        "figcaption",
        {},
        h("strong", {}, "dcolumns"),
        ` of channel ${first + c}: ${times(kh * kw, positions)}. A column is framed, and the entries of the chosen pixel.`,
      ),
      h("div", { class: "scroll" }, columns.element),
    ),
    player.element,
    h(
      "div",
      { class: "maps" },
      mapFigure("One column", titles[0], one, "patch"),
      mapFigure("The image", titles[1], image),
      mapFigure("Count", `of reads, at most ${mostRead}`, reads),
    ),
  ];
  return { elements, draw };
}

/** Adds the first columns of a channel into an image, and counts. */
class ColumnAddition {
  constructor(lowering, c, dcolumns) {
    Object.assign(this, { lowering, c, dcolumns, count: undefined });
  }

  add(count, sums, counts) {
    if (count === this.count) return;
    this.count = count;
    const { lowering, c, dcolumns } = this;
    const area = lowering.kh * lowering.kw;
    sums.data.fill(0);
    counts.data.fill(0);
    for (let p = 0; p < count; p++) {
      for (let row = c * area; row < (c + 1) * area; row++) {
        const [, y, x] = lowering.pixel(row, p);
        if (!lowering.inside(y, x)) continue;
        sums.data[y * lowering.width + x] += entry(dcolumns, row, p);
        counts.data[y * lowering.width + x]++;
      }
    }
  }
}

/** Return buttons and a slider that set how many columns have been added. */
function columnPlayer(count, get, set) {
  let playing = false;
  const play = h("button", { type: "button", "aria-label": "Play", onclick: () => (playing ? pause() : start()) }, "▶ Play");
  const slider = h("input", {
    type: "range",
    min: "0",
    max: String(count),
    step: "1",
    "aria-label": "Columns added",
    oninput: () => (pause(), set(Number(slider.value))),
  });
  const button = (text, label, to) => h("button", { type: "button", "aria-label": label, onclick: () => (pause(), go(to())) }, text);
  const element = h(
    "div",
    { class: "tools player" },
    play,
    button("None", "Remove all columns", () => 0),
    button("‹", "One column less", () => get() - 1),
    button("›", "One column more", () => get() + 1),
    button("All", "Add all columns", () => count),
    h("label", {}, "Columns added ", slider),
  );
  function go(added) {
    set(Math.max(0, Math.min(count, added)));
    announce(`${get()} of ${count} columns added`);
  }
  function pause() {
    playing = false;
    label();
  }
  function label() {
    play.textContent = playing ? "❚❚ Pause" : "▶ Play";
    play.setAttribute("aria-label", playing ? "Pause" : "Play");
  }
  function start() {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return go(count);
    playing = true;
    label();
    const from = get() >= count ? 0 : get();
    let began;
    const frame = (now) => {
      if (!playing || !element.isConnected) return;
      began ??= now;
      const added = Math.min(count, from + Math.floor(((now - began) / PLAYED) * count) + 1);
      if (added !== get()) set(added);
      if (added < count) requestAnimationFrame(frame);
      else pause();
    };
    requestAnimationFrame(frame);
  }
  const draw = () => {
    slider.value = String(get());
    slider.setAttribute("aria-valuetext", `${get()} of ${count}`);
  };
  return { element, draw };
}

/** The second reading: dZ, padded, under the filter turned by 180 degrees. */
function rotatedReading(shared) {
  const { gradients, chosen, pick, pointing, pointTap, stage, rebuild } = shared;
  const { lowering, dz, conv, start, filters, first } = gradients;
  const { kh, kw } = lowering;
  const c = chosen.channel;
  const { spread } = gradients;
  const local = () => chosen.filter - start;
  const w = (a, b) => entry(conv.weight, local(), lowering.row(c, a, b));
  const turned = (r, k) => [kh - 1 - r, kw - 1 - k];
  const at = (u, v) => {
    const p = spread.position(u, v);
    return p === undefined ? null : entry(dz, local(), p);
  };
  const term = (r, k) => {
    const tap = turned(r, k);
    const value = at(...spread.cell(chosen.pixel, tap));
    return value === null ? null : value * w(...tap);
  };
  const wide = namedGrid({
    name: "spread",
    rows: spread.rows,
    cols: spread.cols,
    value: at,
    magnitude: largest(dz.data),
    label: "dZ with zeros around and between",
    point: (u, v) => pick({ pixel: clampedPixel(lowering, spread, u, v) }),
    describe: (u, v) =>
      at(u, v) === null ? "a zero put in" : `dZ at ${lowering.place(spread.position(u, v)).join(", ")}: ${short(at(u, v))}`,
    width: 360,
  });
  const small = (name, value, most, label, tapOf) =>
    namedGrid({
      name,
      rows: kh,
      cols: kw,
      value,
      magnitude: most,
      label,
      width: 150,
      point: (r, k) => pointTap(tapOf(r, k)),
      describe: (r, k) => `${label}, tap ${tapOf(r, k).join(", ")}: ${value(r, k) === null ? "a zero put in" : short(value(r, k))}`,
    });
  const same = (r, k) => [r, k];
  const most = largest(conv.weight.data);
  const filter = small("filter", w, most, "filter", same);
  const rotated = small("rotated-filter", (r, k) => w(...turned(r, k)), most, "rotated filter", turned);
  const window = small("dz-window", (r, k) => at(...spread.cell(chosen.pixel, turned(r, k))), largest(dz.data), "dZ around", turned);
  const products = small("rotated-terms", term, most * largest(dz.data), "products", turned);
  const numbers = tapNumbers(shared, spread, small, turned);
  const found = new Float32Array(filters);
  const overFilters = new TermStrips({
    name: "filters",
    count: filters,
    parts: [{ title: "sum of each filter", role: "", value: (k) => found[k], most: most * largest(dz.data) * Math.sqrt(kh * kw) }],
    point: (k) => pick({ filter: start + k }),
    describe: (k) => `filter ${start + k}: ${short(found[k])}`,
  });
  const total = h("p", { class: "total" });
  const filterStepper = stepper({
    label: "Filter",
    count: stage.output_shape[0],
    value: chosen.filter,
    change: (k) => (k >= start && k < start + filters ? pick({ filter: k }) : rebuild({ filter: k, channel: 0 })),
  });
  const draw = () => {
    const { pixel } = chosen;
    filterStepper.set(chosen.filter);
    const terms = shared.terms();
    for (let k = 0; k < filters; k++)
      found[k] = sumInOrder(terms.map((each) => entry(dz, k, each.position) * entry(conv.weight, k, each.row)));
    for (const grid of [wide, filter, rotated, window, products]) grid.draw();
    numbers.draw();
    overFilters.draw(local());
    const { tap } = pointing;
    const mark = ([r, k]) => [cellMark([r, k], "cursor")];
    filter.mark(mark(tap));
    for (const grid of [rotated, window, products]) grid.mark(mark(turned(...tap)));
    const [u, v] = spread.cell(pixel, [kh - 1, kw - 1]);
    const [s, t] = spread.cell(pixel, [0, 0]);
    const [p, q] = spread.cell(pixel, tap);
    wide.mark([
      { rows: [u, s + 1], cols: [v, t + 1], role: "weight" },
      cellMark([p, q], "cursor"),
    ]);
    total.replaceChildren(
      `Filter ${chosen.filter} gives ${short(found[local()])}; `,
      `all ${filters} filters together give dX[${first + c}, ${pixel.join(", ")}] = `,
      h("strong", {}, short(sumInOrder(found))),
    );
  };
  const caption = (grid, text, role) =>
    h("div", { class: `small ${role}` }, grid.element, h("span", { class: "caption" }, text, grid.unit));
  const operator = (sign) => h("span", { class: "operator" }, sign);
  const elements = [
    h("h3", {}, "Why it is rotated"),
    h("div", { class: "reason" }, h("p", {}, reasonText(lowering)), h("div", { class: "factors-of-sum level" }, numbers.elements)),
    h("h3", {}, "The filter, turned by 180°, over dZ"),
    h("div", { class: "tools" }, filterStepper.element, h("span", { class: "caption" }, "Point at a tap to find it in all pictures.")),
    h(
      "div",
      { class: "maps" },
      mapFigure("dZ", `[${chosen.filter}] with zeros around it`, wide, "weight"),
      h(
        "div",
        { class: "turning" },
        h(
          "div",
          { class: "factors-of-sum level" },
          caption(filter, "W, as it is", "weight"),
          operator("↻"),
          caption(rotated, "W, turned", "weight"),
          operator("×"),
          caption(window, "dZ around the pixel", ""),
          operator("="),
          caption(products, "products", ""),
        ),
        overFilters.element,
        total,
      ),
    ),
  ];
  return { elements, draw };
}

/** Return the pixel around which a cell of the spread map lies. */
function clampedPixel(lowering, { offset, reach }, u, v) {
  const clamp = (k, count) => Math.max(0, Math.min(count - 1, k));
  return [
    clamp(u - offset[0] - Math.floor(reach[0] / 2), lowering.height),
    clamp(v - offset[1] - Math.floor(reach[1] / 2), lowering.width),
  ];
}

/** The taps of the window, numbered, beside the taps that read the pixel, at the positions from which they read it. */
function tapNumbers({ gradients, chosen, pointing }, spread, small, turned) {
  const { kh, kw } = gradients.lowering;
  const number = (a, b) => a * kw + b;
  const last = Math.max(kh * kw - 1, 1);
  const readFrom = (r, k) => {
    const tap = turned(r, k);
    return spread.position(...spread.cell(chosen.pixel, tap)) === undefined ? null : number(...tap);
  };
  const window = small("tap-numbers", number, last, "window", (r, k) => [r, k]);
  const around = small("tap-readers", readFrom, last, "positions", turned);
  const mark = (grid, [r, k]) => grid.mark([cellMark([r, k], "cursor")]);
  const draw = () => {
    const { tap } = pointing;
    around.draw();
    mark(window, tap);
    mark(around, turned(...tap));
  };
  const captioned = (grid, text) => h("div", { class: "small" }, grid.element, h("span", { class: "caption" }, text, grid.unit));
  const elements = [
    captioned(window, "taps of a window, numbered"),
    h("span", { class: "operator" }, "↻"),
    captioned(around, "positions in dZ: by which tap each read this pixel"),
  ];
  return { elements, draw };
}

/** Return whether a window has neither stride nor dilation nor padding. */
function isPlain({ sweep: { stride, dilation, pads } }) {
  return Math.max(...stride, ...dilation) === 1 && Math.max(...pads.flat()) === 0;
}

function reasonText(lowering) {
  const where = isPlain(lowering) ? "(y − a, x − b)" : "((y + PH − a·DH) / SH, (x + PW − b·DW) / SW), if these are whole numbers";
  return [
    `Pixel (y, x) lay under tap (a, b) of the window at position ${where}. `,
    "A tap further to the right means a window further to the left. So if you stand on the pixel and read the dZ around it ",
    "from left to right and from top to bottom, you meet the taps from the last to the first: the filter appears turned by 180°.",
  ];
}

/** Return what stride, dilation and padding change in the second reading, or null. */
function strideNote({ sweep: { stride, dilation, pads }, kh, kw }) {
  const parts = [
    `Around dZ lie DH·(KH − 1) = ${dilation[0] * (kh - 1)} rows and DW·(KW − 1) = ${dilation[1] * (kw - 1)} columns of zeros,`,
    "so that the turned filter also fits at the first pixel.",
  ];
  if (Math.max(...stride) > 1)
    parts.push(
      `The stride ${times(stride)} puts SH − 1 rows and SW − 1 columns of zeros between the numbers of dZ:`,
      "windows began only at every SH-th row and every SW-th column.",
    );
  if (Math.max(...dilation) > 1) parts.push(`The dilation ${times(dilation)} spreads the turned filter as it spread the filter.`);
  if (pads.flat().some((width) => width > 0))
    parts.push(
      `The padding (${pads.flat().join(", ")}) moves the turned filter by PH and PW:`,
      "nobody asks for the gradient of the padding, which col2im drops.",
    );
  return parts.join(" ");
}
