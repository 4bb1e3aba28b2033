export {
  clusterNodes,
  clusterUrl,
  driverUrl,
  isClusterUrl,
  type Node,
} from "./addresses.js";
export {
  describeServer,
  findKeys,
  infoField,
  openClient,
  removeKeys,
  until,
  withClient,
} from "./clients.js";
export {
  masterOf,
  OUTLIVING,
  startCluster,
  startOwnCluster,
  takingPart,
  type OwnCluster,
  type OwnClusterOptions,
  type TestCluster,
} from "./cluster.js";
export {
  type RestartableServer,
  type Settings,
  type Shutdown,
} from "./processes.js";
export {
  inSync,
  startRedis,
  startReplica,
  startRestartableValkey,
  startValkey,
  type ServerOptions,
} from "./server.js";
export { freePort, Workplace, type TestServer } from "@flowfabric/test-servers";
