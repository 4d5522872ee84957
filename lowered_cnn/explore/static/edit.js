// Numbers typed, or dragged up and down, in the cells of a grid.

import { announce } from "./dom.js";

const EDIT_PIXELS = 12; // how far a drag goes for a number to change by one
const EDIT_PAUSE = 1500; // milliseconds after which typing starts a new number
const EDIT_LENGTH = 6;

/** Make a grid editable: keys type a number into the cell pointed at, and a mouse or pen that is pressed there drags it. */
export function makeEditable(grid) {
  const { element } = grid;
  let typed = "";
  let last = 0;
  let drag = null;
  const write = (value) => {
    grid.edit(...grid.cursor, value);
    element.title = grid.described(...grid.cursor);
  };
  const enter = (event) => {
    const { key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (key === "Delete") typed = "";
    else if (key === "Backspace") typed = typed.slice(0, -1);
    else if (/^[-0-9.]$/.test(key)) typed = (key === "-" || event.timeStamp - last > EDIT_PAUSE ? "" : typed) + key;
    else return void (typed = "");
    event.preventDefault();
    typed = typed.slice(0, EDIT_LENGTH);
    last = event.timeStamp;
    write(Number.isFinite(Number(typed)) ? Number(typed) : 0);
    announce(grid.described(...grid.cursor));
  };
  const begin = (event) => {
    typed = "";
    if (event.pointerType === "touch" || event.button !== 0) return;
    drag = { y: event.clientY, value: grid.value(...grid.cursor) ?? 0 };
    element.setPointerCapture(event.pointerId);
  };
  const move = (event) => {
    if (!drag) return;
    event.stopImmediatePropagation();
    const by = Math.round((drag.y - event.clientY) / EDIT_PIXELS);
    if (by || drag.moved) write(Number((drag.value + by).toFixed(4)));
    drag.moved ||= by !== 0;
  };
  element.addEventListener("keydown", enter);
  element.addEventListener("pointerdown", begin);
  element.addEventListener("pointermove", move, { capture: true });
  for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => (drag = null));
}
