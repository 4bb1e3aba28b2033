export { compareRates, type Comparison, type Ratio } from "./comparing.js";
export { fillTables, type Filling } from "./large-tables.js";
export { countRoundTrips, type RoundTrips } from "./round-trips.js";
export {
  findBouncer,
  freePort,
  Workplace,
  type StartedProgram,
} from "./programs.js";
export {
  answering,
  startNewestServer,
  startRestartableServer,
  startServer,
  startServerWith,
  type RestartableServer,
  type ServerOptions,
  type Shutdown,
  type TestServer,
} from "./server.js";
export {
  recordingPool,
  type RecordingPool,
  type SentStatement,
} from "./statements.js";
