// Elements, numbers as text, and the line that screen readers hear.

/** Return an element: h("p", { class: "note", onclick: f }, "text", other). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return an SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return a number with three significant digits, and a true minus sign; "–" for NaN, and for none. */
export function short(value) {
  if (Math.abs(value) === Infinity) return value > 0 ? "∞" : "−∞";
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  return text.replaceAll("-", "−");
}

/** Return a number with a fixed count of decimals, so that a column of them is aligned. */
export function fixed(value, digits = 4) {
  return Number.isFinite(value) ? value.toFixed(digits).replace("-", "−") : short(value);
}

/** Return a number in so few characters that it fits into a small cell. */
export function tight(value, most) {
  if (Number.isInteger(value)) return short(value);
  if (Math.abs(value) < 0.005) return "≈0";
  const forms = [2, 1, 0].map((digits) => fixed(value, digits).replace(/^(−?)0\./, "$1."));
  return forms.find((form) => form.length <= most) ?? forms[2];
}

/** Return a whole number with separators. */
export function grouped(value) {
  return Math.round(value).toLocaleString("en-US");
}

/** Return a share as a percentage. */
export function percent(share) {
  return `${fixed(100 * share, 2)}\u00a0%`;
}

/** Return lengths as in "8 × 24 × 24". */
export function times(...lengths) {
  return lengths.flat().join(" × ");
}

/** Return the head of a table: a row of names. */
export function tableHead(names) {
  const cells = names.map((name) => h("th", { scope: "col" }, name));
  return h("thead", {}, h("tr", {}, cells));
}

/** Return a span whose length, set by the style sheet, shows a share between 0 and 1. */
export function bar(kind, share) {
  const element = h("span", { class: kind, "aria-hidden": "true" });
  element.style.setProperty("--share", share);
  return element;
}

/** Return the width that the main part of the page leaves to a figure, in pixels. */
export function mainWidth() {
  return document.getElementById("main").clientWidth;
}

/** Tell screen readers something. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

/** Return a labelled control: a number that buttons and keys step through, from 0 up to, but not including, count. */
export function stepper({ label, count, value, name = String, change }) {
  const select = h(
    "select",
    { "aria-label": label, onchange: () => change(Number(select.value)) },
    Array.from({ length: count }, (_, k) => h("option", { value: k, selected: k === value }, name(k))),
  );
  const step = (by) => {
    select.value = String((Number(select.value) + by + count) % count);
    change(Number(select.value));
  };
  const element = h(
    "span",
    { class: "stepper" },
    h("span", { "aria-hidden": "true" }, label),
    h("button", { type: "button", class: "quiet", "aria-label": `${label}: previous`, disabled: count < 2, onclick: () => step(-1) }, "‹"),
    select,
    h("button", { type: "button", class: "quiet", "aria-label": `${label}: next`, disabled: count < 2, onclick: () => step(1) }, "›"),
  );
  return { element, set: (k) => (select.value = String(k)) };
}
