export { compareRates, type Comparison, type Ratio } from "./comparing.js";
export { compareIdle, type IdleCost } from "./idle.js";
export { freePort, freePorts } from "./ports.js";
export {
  cached,
  fetchDebianPackages,
  FETCH_MS_MAX,
  findProgram,
  type DebianPackages,
  type ProgramFolder,
} from "./programs.js";
export {
  firstOf,
  givenServer,
  givenUrl,
  reason,
  type TestServer,
  type Way,
} from "./ways.js";
export { StartedProgram, Workplace } from "./workplace.js";
