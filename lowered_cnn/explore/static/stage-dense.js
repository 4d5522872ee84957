export { mapStage as denseStage } from "./stage-maps.js";
