/** `waitForReplicas`: what was answered is on the replicas, and what is not there is not answered as if it were. */
import { randomUUID } from "node:crypto";

import type { EngineBackend } from "@flowfabric/core";
import { valkeyBackend, type ValkeyOptions } from "@flowfabric/valkey";
import {
  infoField,
  inSync,
  openClient,
  startOwnCluster,
  startReplica,
  startRestartableValkey,
  takingPart,
  until,
  withClient,
  type RestartableServer,
} from "@flowfabric/valkey-testing";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";

import { newPrefix, serverAt } from "./stores.js";

const opened: EngineBackend[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((backend) => backend.close()));
});

async function open(
  url: string,
  options: ValkeyOptions,
): Promise<EngineBackend> {
  const backend = await valkeyBackend({
    ...serverAt(url),
    prefix: newPrefix(),
    ...options,
  });
  opened.push(backend);
  return backend;
}

const claim = {
  workerId: "w",
  workerInstanceId: "w1",
  lanes: ["default"],
  leaseTtlMs: 30_000,
  max: 1,
};

function tooFew(words: RegExp) {
  return expect.objectContaining({
    code: "transport",
    detail: expect.objectContaining({
      backend: "valkey",
      message: expect.stringMatching(words),
    }),
  });
}

describe("one server", () => {
  let server: RestartableServer;
  let replica: RestartableServer;
  beforeAll(async () => {
    server = await startRestartableValkey();
    replica = await startReplica(server);
  });
  afterAll(async () => {
    await replica.stop();
    await server.stop();
  });

  test("what was answered is there", async () => {
    const prefix = newPrefix();
    const waitForReplicas = { replicas: 1 };
    const backend = await open(server.url, { prefix, waitForReplicas });
    const there = openClient(replica.url);
    try {
      for (let n = 1; n <= 50; n++) {
        await backend.createExecution({ executionKind: "k" });
        expect(await there.zcard(`${prefix}:{0}:all`)).toBe(n);
      }
    } finally {
      there.disconnect();
    }
  });

  test("calls of one tick wait together", async () => {
    const backend = await open(server.url, {
      waitForReplicas: { replicas: 1 },
    });
    const before = await commandCalls(server, "wait");
    await Promise.all(
      Array.from({ length: 20 }, () =>
        backend.createExecution({ executionKind: "k" }),
      ),
    );
    expect((await commandCalls(server, "wait")) - before).toBe(1);
  });

  test("with too few copies the caller is told that it was carried out, and waits again by calling again", async () => {
    const prefix = newPrefix();
    const waitForReplicas = { replicas: 1, timeoutMs: 200 };
    const options = { prefix, waitForReplicas };
    const backend = await open(server.url, options);
    const { executionId: ended } = await backend.createExecution({
      executionKind: "k",
    });
    const [claimed] = (await backend.claimMany(claim)).claimed;
    const executionId = `{fp:7}:${randomUUID()}`;
    const submit = (on = backend) =>
      on.createExecution({ executionKind: "k", executionId });
    replica.signal("SIGSTOP");
    try {
      const words = /carried out, .* 200 ms only 0 of 1 replicas/;
      await expect(submit()).rejects.toEqual(tooFew(words));
      // Nothing is written any more, but there are no more copies for that; nor for another connection.
      await expect(submit()).rejects.toEqual(tooFew(words));
      const other = await open(server.url, options);
      await expect(submit(other)).rejects.toEqual(tooFew(words));
      await expect(
        backend.complete({ handle: claimed!.handle }),
      ).rejects.toEqual(tooFew(words));
      expect(await backend.describeExecution({ executionId: ended })).toEqual(
        expect.objectContaining({ publicState: "completed" }),
      );
      // A refusal is told as such.
      await expect(
        backend.cancelExecution({
          executionId: `{fp:7}:${randomUUID()}`,
          reason: "none",
          source: "operator_override",
        }),
      ).rejects.toMatchObject({ code: "execution_not_found" });
    } finally {
      replica.signal("SIGCONT");
    }
    await inSync(replica);
    await until(
      async () => (await submit()).kind === "duplicate",
      "it is recognised",
    );
  });

  test("nothing else stands behind the wait", async () => {
    const backend = await open(server.url, {
      waitForReplicas: { replicas: 1, timeoutMs: 3_000 },
    });
    await backend.createExecution({ executionKind: "k" });
    replica.signal("SIGSTOP");
    try {
      const submitted = backend.createExecution({ executionKind: "k" });
      const isTold = expect(submitted).rejects.toEqual(tooFew(/carried out/));
      const startMs = performance.now();
      const { claimed } = await backend.claimMany(claim);
      expect(claimed).toHaveLength(1);
      expect(performance.now() - startMs).toBeLessThan(1_500);
      await isTold;
    } finally {
      replica.signal("SIGCONT");
    }
    await inSync(replica);
  });

  test("fsync: on disk, here and there", async () => {
    const backend = await open(server.url, {
      waitForReplicas: { replicas: 1, fsync: true, timeoutMs: 5_000 },
    });
    const before = await commandCalls(server, "waitaof");
    await backend.createExecution({ executionKind: "k" });
    expect((await commandCalls(server, "waitaof")) - before).toBe(1);
    const alone = await open(server.url, {
      waitForReplicas: { replicas: 2, fsync: true, timeoutMs: 3_000 },
    });
    await expect(alone.createExecution({ executionKind: "k" })).rejects.toEqual(
      tooFew(/only 1 of 2 replicas have it on disk/),
    );
  });
});

test("fsync is refused where the server keeps no log", async () => {
  const server = await startRestartableValkey({
    settings: { appendonly: "no" },
  });
  try {
    await expect(
      open(server.url, { waitForReplicas: { replicas: 0, fsync: true } }),
    ).rejects.toMatchObject({
      code: "invalid_input",
      detail: {
        field: "waitForReplicas",
        reason: expect.stringContaining("appendonly"),
      },
    });
  } finally {
    await server.stop();
  }
});

test.for([
  { waitForReplicas: { replicas: 0 } },
  { waitForReplicas: { replicas: 1, timeoutMs: 20_000 } },
])("%j is refused", async (options) => {
  await expect(
    valkeyBackend({ url: "redis://127.0.0.1:1", ...options }),
  ).rejects.toMatchObject({
    code: "invalid_input",
    detail: { field: expect.stringContaining("waitForReplicas") },
  });
});

test("in a cluster each master waits for its own, also after changes of masters", async () => {
  const { url, servers, stop } = await startOwnCluster({
    replicasPerMaster: 1,
    settings: { "cluster-node-timeout": "1000" },
  });
  const allTakePart = async () => {
    for (const server of servers) await takingPart(server, servers.length);
  };
  try {
    const backend = await open(url, {
      // A new replica counts from its first sign of life on, a second later.
      waitForReplicas: { replicas: 1, timeoutMs: 2_000 },
    });
    const submitAll = () =>
      Promise.allSettled(
        Array.from({ length: 32 }, (_unused, partition) =>
          backend.createExecution({
            executionKind: "k",
            executionId: `{fp:${partition}}:${randomUUID()}`,
          }),
        ),
      );
    const outcomes = async () =>
      (await submitAll()).map((outcome) =>
        outcome.status === "fulfilled"
          ? "submitted"
          : (outcome.reason as { detail: { message: string } }).detail.message,
      );
    expect(new Set(await outcomes())).toEqual(new Set(["submitted"]));

    // The replica of the first master.
    servers[3]!.signal("SIGSTOP");
    try {
      const told = await outcomes();
      expect(new Set(told)).toEqual(
        new Set(["submitted", expect.stringMatching(/only 0 of 1 replicas/)]),
      );
    } finally {
      servers[3]!.signal("SIGCONT");
    }
    await inSync(servers[3]!);
    await allTakePart();

    await withClient(servers[3]!, (client) => client.cluster("FAILOVER"));
    await until(
      () =>
        withClient(
          servers[3]!,
          async (client) =>
            infoField(await client.info("replication"), "role") === "master",
        ),
      "the replica is a master",
    );
    await inSync(servers[0]!);
    await allTakePart();
    expect(new Set(await outcomes())).toEqual(new Set(["submitted"]));

    // Its replica takes over, and has none itself.
    await servers[1]!.shutDown("crash");
    const told = new Set(["submitted", expect.stringMatching(/only 0 of 1/)]);
    await until(async () => {
      expect(new Set(await outcomes())).toEqual(told);
      return true;
    }, "the new master is found");
    await servers[1]!.start();
    await inSync(servers[1]!);
    await allTakePart();
    expect(new Set(await outcomes())).toEqual(new Set(["submitted"]));
  } finally {
    await stop();
  }
});

/** How often the server was told. */
function commandCalls(
  server: RestartableServer,
  command: string,
): Promise<number> {
  return withClient(server, async (client) => {
    const stats = infoField(
      await client.info("commandstats"),
      `cmdstat_${command}`,
    );
    return Number(/calls=(\d+)/.exec(stats ?? "calls=0")![1]);
  });
}
