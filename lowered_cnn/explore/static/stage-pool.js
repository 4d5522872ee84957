export { mapStage as poolStage } from "./stage-maps.js";
