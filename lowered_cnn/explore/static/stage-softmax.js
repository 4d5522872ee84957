import { h } from "./dom.js";
export function softmaxStage() { return h("p", {}, ""); }
