import { afterAll, beforeAll } from "vitest";

import { createPostgresBench, startProxy } from "./faults/postgres-bench.js";
import { postgresCommitTests } from "./faults/postgres-commits.js";
import { postgresConnectionTests } from "./faults/postgres-connections.js";
import { postgresListeningTests } from "./faults/postgres-listening.js";
import { postgresLockTests } from "./faults/postgres-locks.js";
import { PostgresServer } from "./faults/postgres-server.js";
import { stallTests } from "./faults/stalls.js";

let server: PostgresServer;
beforeAll(async () => {
  server = await PostgresServer.create();
});
afterAll(() => server.remove());
const serverOf = () => server;

postgresConnectionTests(serverOf);
stallTests({
  name: "postgres",
  async open(options) {
    const { store } = createPostgresBench(server);
    const proxy = await startProxy(server);
    const through = { ...options, through: proxy, listenThrough: proxy };
    return { proxy, store: store(through), direct: store() };
  },
});
postgresListeningTests(serverOf);
postgresLockTests(serverOf);
postgresCommitTests(serverOf);
