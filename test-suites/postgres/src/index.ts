export { fillTables, type Filling } from "./large-tables.js";
export { startServer, type ServerOptions, type TestServer } from "./server.js";
export {
  recordingPool,
  type RecordingPool,
  type SentStatement,
} from "./statements.js";
