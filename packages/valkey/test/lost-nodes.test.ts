/** A node of a cluster that is gone, or silent: what lies on the others goes on, and what lies there is told of item by item. */
import { crc16, type EngineBackend } from "@flowfabric/core";
import { valkeyBackend } from "@flowfabric/valkey";
import {
  clusterNodes,
  masterOf,
  OUTLIVING,
  startOwnCluster,
  until,
  type OwnCluster,
} from "@flowfabric/valkey-testing";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";

const CELLS = 16;
const LOST = 1;
/** Longer than any test may take: nobody may wait for it. */
const ANSWER_TIMEOUT_MS = 120_000;
/** Ten times what a silent node may cost. */
const SILENCE_MS = 20_000;
const START_MS_MAX = 60_000;

let cluster: OwnCluster;
let backend: EngineBackend;
let prefixes = 0;
beforeAll(async () => {
  cluster = await startOwnCluster({ settings: OUTLIVING });
}, START_MS_MAX);
afterAll(() => cluster.stop());
afterEach(() => backend.close());

const claim = {
  workerId: "w",
  workerInstanceId: "w1",
  lanes: ["default"],
  max: CELLS,
  leaseTtlMs: 600_000,
};

const UNREACHABLE = { code: "transport" };

async function open(): Promise<EngineBackend> {
  return await valkeyBackend({
    clusterNodes: clusterNodes(cluster.url),
    prefix: `lost-${prefixes++}`,
    answerTimeoutMs: ANSWER_TIMEOUT_MS,
  });
}

/** Some of all; the first one stays. */
function isLost(cell: number): boolean {
  return masterOf(crc16(Buffer.from(String(cell)))) === LOST;
}

/** One in each cell, in their order. */
async function submitEverywhere(): Promise<string[]> {
  const executionIds = Array.from(
    { length: CELLS },
    (_unused, cell) => `{fp:${cell}}:${crypto.randomUUID()}`,
  );
  const results = await backend.submitMany({
    items: executionIds.map((executionId) => ({
      executionKind: "k",
      executionId,
    })),
  });
  for (const { kind } of results) expect(kind).toBe("created");
  return executionIds;
}

const staying = <Item>(items: readonly Item[]): Item[] =>
  items.filter((_item, cell) => !isLost(cell));

const idsOf = (claimed: readonly { readonly executionId: string }[]) =>
  claimed.map(({ executionId }) => executionId).sort();

/** Starts the lost node, and waits until it takes part again. */
async function restartLost(): Promise<void> {
  await cluster.servers[LOST]!.start();
  await until(async () => {
    const probe = await valkeyBackend({
      clusterNodes: clusterNodes(cluster.url),
      prefix: "probe",
    });
    try {
      await probe.claimMany({ ...claim, lanes: ["none"] });
      return true;
    } finally {
      await probe.close();
    }
  }, "all nodes are back");
}

test(
  "of a node that is gone the items are refused, and those of others carried out",
  async () => {
    backend = await open();
    await submitEverywhere();
    const held = (await backend.claimMany(claim)).claimed.sort((a, b) =>
      partitionOf(a) < partitionOf(b) ? -1 : 1,
    );
    expect(held).toHaveLength(CELLS);
    const waiting = await submitEverywhere();

    await cluster.servers[LOST]!.shutDown("crash");
    const more = await backend.submitMany({
      items: Array.from({ length: CELLS }, (_unused, cell) => ({
        executionKind: "k",
        executionId: `{fp:${cell}}:${crypto.randomUUID()}`,
      })),
    });
    const { results, claimed } = await backend.completeAndClaim({
      items: held.map(({ handle }) => ({ handle })),
      claim,
    });

    for (const [cell, result] of more.entries())
      expect(result).toMatchObject(
        isLost(cell)
          ? { kind: "rejected", ...UNREACHABLE }
          : { kind: "created" },
      );
    for (const [cell, result] of results.entries())
      expect(result).toMatchObject(
        isLost(cell)
          ? { kind: "rejected", ...UNREACHABLE }
          : { kind: "completed" },
      );
    expect(idsOf(claimed)).toEqual(expect.arrayContaining(staying(waiting)));

    await restartLost();
    const lost = held.filter((_one, cell) => isLost(cell));
    for (const result of await backend.completeMany({
      items: lost.map(({ handle }) => ({ handle })),
    }))
      expect(result).toEqual({ kind: "completed" });
  },
  START_MS_MAX,
);

test(
  "a claim brings what the other nodes have, and waits for what comes there",
  async () => {
    backend = await open();
    const waiting = await submitEverywhere();
    await cluster.servers[LOST]!.shutDown("crash");

    const { claimed } = await backend.claimMany(claim);
    expect(idsOf(claimed)).toEqual(staying(waiting).sort());

    // Nothing is left there, and whether there is something on the lost one nobody knows.
    await expect(backend.claimMany(claim)).rejects.toMatchObject(UNREACHABLE);
    const startedAtMs = performance.now();
    await expect(
      backend.claimMany({ ...claim, maxWaitMs: 1_000 }),
    ).rejects.toMatchObject(UNREACHABLE);
    expect(performance.now() - startedAtMs).toBeGreaterThan(900);

    const parked = backend.claimMany({ ...claim, maxWaitMs: 30_000 });
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    const submittedAtMs = performance.now();
    const cell = [...Array(CELLS).keys()].findLast((one) => !isLost(one))!;
    const executionId = `{fp:${cell}}:${crypto.randomUUID()}`;
    await backend.createExecution({ executionKind: "k", executionId });
    expect(idsOf((await parked).claimed)).toEqual([executionId]);
    expect(performance.now() - submittedAtMs).toBeLessThan(500);

    const last = backend.claimMany({ ...claim, maxWaitMs: 30_000 });
    await restartLost();
    expect((await last).claimed.length).toBeGreaterThan(0);
    const rest = await backend.claimMany(claim);
    expect(
      [...idsOf((await last).claimed), ...idsOf(rest.claimed)].sort(),
    ).toEqual(waiting.filter((_id, one) => isLost(one)).sort());
  },
  START_MS_MAX,
);

test(
  "a process that is started meanwhile works on the nodes there are",
  async () => {
    backend = await open();
    const waiting = await submitEverywhere();
    await backend.close();
    prefixes--;
    await cluster.servers[LOST]!.shutDown("crash");
    backend = await open();

    const { claimed } = await backend.claimMany(claim);
    expect(idsOf(claimed)).toEqual(staying(waiting).sort());

    await restartLost();
  },
  START_MS_MAX,
);

test(
  "a node that is silent holds nobody up for long",
  async () => {
    backend = await open();
    const waiting = await submitEverywhere();
    cluster.servers[LOST]!.signal("SIGSTOP");
    try {
      const startedAtMs = performance.now();
      const { claimed } = await backend.claimMany(claim);
      expect(idsOf(claimed)).toEqual(staying(waiting).sort());
      const results = await backend.completeMany({
        items: claimed.map(({ handle }) => ({ handle })),
      });
      expect(results).toEqual(claimed.map(() => ({ kind: "completed" })));
      expect(performance.now() - startedAtMs).toBeLessThan(SILENCE_MS);
    } finally {
      cluster.servers[LOST]!.signal("SIGCONT");
    }
    await until(async () => {
      const { claimed } = await backend
        .claimMany(claim)
        .catch(() => ({ claimed: [] }));
      return claimed.length > 0;
    }, "what lies on the node that speaks again");
  },
  START_MS_MAX,
);

test(
  "a rotation tells which cells it has not reached, waits for none of them, and a repeat completes it",
  async () => {
    const SECRET_HEX = "0f".repeat(32);
    backend = await open();
    await backend.seedWaitpointHmacSecret({ kid: "k0", secretHex: SECRET_HEX });
    const cells = [...Array(CELLS).keys()];
    const rotate = async (newKid: string) => {
      const { entries } = await backend.rotateWaitpointHmacSecretAll({
        newKid,
        newSecretHex: SECRET_HEX,
      });
      expect(entries.map(({ partition }) => partition)).toEqual(cells);
      return entries.map(({ result }) => result);
    };
    const rotated = (newKid: string, previousKid: string) => ({
      kind: "rotated",
      previousKid,
      newKid,
      gcCount: 0,
    });
    const unreached = { kind: "rejected", ...UNREACHABLE };

    await cluster.servers[LOST]!.shutDown("crash");
    expect(await rotate("k1")).toMatchObject(
      cells.map((cell) => (isLost(cell) ? unreached : rotated("k1", "k0"))),
    );
    await restartLost();
    expect(await rotate("k1")).toEqual(
      cells.map((cell) =>
        isLost(cell) ? rotated("k1", "k0") : { kind: "noop", kid: "k1" },
      ),
    );

    cluster.servers[LOST]!.signal("SIGSTOP");
    try {
      const startedAtMs = performance.now();
      expect(await rotate("k2")).toMatchObject(
        cells.map((cell) => (isLost(cell) ? unreached : rotated("k2", "k1"))),
      );
      expect(performance.now() - startedAtMs).toBeLessThan(SILENCE_MS);
    } finally {
      cluster.servers[LOST]!.signal("SIGCONT");
    }
    // It may have read the call before it fell silent, and carry it out now.
    await until(async () => {
      const results = await rotate("k2");
      return results.every(({ kind }) => kind === "noop");
    }, "all cells sign with the new key");
    expect(await backend.listWaitpointHmacKids()).toMatchObject({
      currentKid: "k2",
    });
  },
  START_MS_MAX,
);

function partitionOf({
  executionId,
}: {
  readonly executionId: string;
}): number {
  return Number(/^\{fp:(\d+)\}/.exec(executionId)![1]);
}
