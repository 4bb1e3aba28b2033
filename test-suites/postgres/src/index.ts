export { fillTables, type Filling } from "./large-tables.js";
export { countRoundTrips, type RoundTrips } from "./round-trips.js";
export { findBouncer } from "./programs.js";
export {
  answering,
  startNewestServer,
  startRestartableServer,
  startServer,
  startServerWith,
  type RestartableServer,
  type ServerOptions,
  type Shutdown,
} from "./server.js";
export {
  recordingPool,
  type RecordingPool,
  type SentStatement,
} from "./statements.js";
export {
  freePort,
  Workplace,
  type StartedProgram,
  type TestServer,
} from "@flowfabric/test-servers";
