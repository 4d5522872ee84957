// Backward: to be written.

import { h } from "./dom.js";

/** Show the view in an element; returns what ends it. */
export function backwardView(store, element) {
  element.replaceChildren(h("h2", {}, "Backward"));
  return () => {};
}
