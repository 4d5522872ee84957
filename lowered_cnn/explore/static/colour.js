// Colours of numbers: blue below zero, orange above, paper at zero; and ink for images. They follow the theme.

/** Return whether the page is dark. */
export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

const THEMES = {
  light: { paper: [250, 250, 247], ink: [22, 24, 29], below: [33, 92, 168], above: [186, 84, 10] },
  dark: { paper: [28, 30, 36], ink: [240, 240, 236], below: [112, 170, 245], above: [248, 160, 84] },
};

let currentTheme = null; // asked for every cell, so it is remembered until it changes

function theme() {
  return (currentTheme ??= THEMES[isDark() ? "dark" : "light"]);
}

function mixed(from, to, share) {
  return from.map((part, k) => Math.round(part + (to[k] - part) * share));
}

/** Return the colour function for numbers between -most and most, zero in the middle. */
export function diverging(most) {
  return (value) => {
    const { paper, below, above } = theme();
    const share = Math.min(1, Math.abs(value) / most);
    return mixed(paper, value < 0 ? below : above, Math.sqrt(share));
  };
}

/** Return the colour function for an image whose numbers go from 0 to most: paper to ink. */
export function ink(most) {
  return (value) => {
    const { paper, ink: dark } = theme();
    return mixed(paper, dark, Math.max(0, Math.min(1, value / most)));
  };
}

/** Return a colour as CSS. */
export function css([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

/** Return black or white, whichever is easier to read on a colour. */
export function readableOn([red, green, blue]) {
  return 0.299 * red + 0.587 * green + 0.114 * blue > 118 ? "#111" : "#fff";
}

const redrawn = new Set();

/** Draw something again whenever the theme changes, for as long as its element is on the page. */
export function onTheme(element, draw) {
  redrawn.add({ element, draw });
}

/** Draw everything again in the colours of the theme. */
export function themeChanged() {
  currentTheme = null;
  for (const each of [...redrawn]) {
    if (each.element.isConnected) each.draw();
    else redrawn.delete(each);
  }
}
