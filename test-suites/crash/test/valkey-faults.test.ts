import {
  startRestartableValkey,
  type RestartableServer,
} from "@flowfabric/valkey-testing";
import { afterAll, beforeAll } from "vitest";

import { stallTests } from "./faults/stalls.js";
import { createValkeyBench, startProxy } from "./faults/valkey-bench.js";
import { valkeyClusterTests } from "./faults/valkey-cluster.js";
import { valkeyConnectionTests } from "./faults/valkey-connections.js";
import { valkeyEmptiedTests } from "./faults/valkey-emptied.js";
import { valkeyFailoverTests } from "./faults/valkey-failover.js";
import { valkeyLostShardTests } from "./faults/valkey-lost-shard.js";
import { valkeyMemoryTests } from "./faults/valkey-memory.js";

let server: RestartableServer;
beforeAll(async () => {
  server = await startRestartableValkey();
});
afterAll(() => server.stop());
const serverOf = () => server;

valkeyConnectionTests(serverOf);
stallTests({
  name: "valkey",
  async open(options) {
    const { store } = createValkeyBench(server);
    const proxy = await startProxy(server);
    return {
      proxy,
      store: store({ ...options, through: proxy }),
      direct: store(),
    };
  },
});
valkeyEmptiedTests(serverOf);
valkeyFailoverTests();
valkeyClusterTests();
valkeyLostShardTests();
valkeyMemoryTests();
