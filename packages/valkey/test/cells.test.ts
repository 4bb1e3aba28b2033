/** Feeds, lists and searches over several cells, which one server has as well where it is told to. */
import {
  EARLIEST,
  type CompletionEvent,
  type EngineBackend,
} from "@flowfabric/core";
import { valkeyBackend } from "@flowfabric/valkey";
import { openClient, removeKeys } from "@flowfabric/valkey-testing";
import { afterAll, afterEach, beforeEach, expect, inject, test } from "vitest";

const CELLS = 3;
const url = inject("valkeyUrl");
const prefix = `cells-${process.pid}`;
const client = openClient(url);
let backend: EngineBackend;
beforeEach(async () => {
  backend = await valkeyBackend({ url, prefix, cells: CELLS });
});
afterEach(async () => {
  await backend.close();
  await removeKeys(client, prefix);
});

afterAll(() => client.disconnect());

const worker = { workerId: "w", workerInstanceId: "w1", leaseTtlMs: 60_000 };

/** Of every cell some: partitions are dealt out in turn. */
async function ended(count: number): Promise<string[]> {
  const ids: string[] = [];
  for (let n = 0; n < count; n++) {
    const laneId = `lane-${n % 2}`;
    const { executionId } = await backend.createExecution({
      executionKind: "k",
      laneId,
      tags: { parity: String(n % 2) },
      executionId: `{fp:${n % 7}}:${crypto.randomUUID()}`,
    });
    const { claimed } = await backend.claimMany({
      ...worker,
      lanes: [laneId],
      max: 1,
    });
    await backend.complete({ handle: claimed[0]!.handle });
    ids.push(executionId);
  }
  return ids;
}

async function next(
  feed: AsyncIterable<CompletionEvent>,
  count: number,
): Promise<CompletionEvent[]> {
  const events: CompletionEvent[] = [];
  if (count === 0) return events;
  for await (const event of feed) {
    events.push(event);
    if (events.length === count) break;
  }
  return events;
}

test("a feed goes on behind any event, in every cell", async () => {
  const ids = await ended(30);
  const all = await next(
    await backend.subscribeCompletion({ cursor: EARLIEST }),
    ids.length,
  );
  expect(all.map(({ executionId }) => executionId)).toEqual(ids);
  for (const [index, { cursor }] of all.entries())
    expect(
      await next(
        await backend.subscribeCompletion({ cursor }),
        all.length - index - 1,
      ),
    ).toEqual(all.slice(index + 1));
});

test("a cursor of a feed of one partition is good for that of all", async () => {
  const ids = await ended(14);
  const [first] = await next(
    await backend.subscribeCompletion({
      cursor: EARLIEST,
      partition: "{fp:3}",
    }),
    1,
  );
  expect(first!.executionId).toBe(ids[3]);
  const rest = await next(
    await backend.subscribeCompletion({ cursor: first!.cursor }),
    1,
  );
  // What is not of that cell was not passed over.
  expect(rest[0]!.executionId).toBe(ids[1]);
});

test("a cursor of a store of another shape, or of what has not been yet, is refused", async () => {
  await ended(1);
  const [event] = await next(
    await backend.subscribeCompletion({ cursor: EARLIEST }),
    1,
  );
  const bytes = Buffer.from(event!.cursor, "base64url");
  expect(bytes).toHaveLength(3 + 16 * CELLS);
  const later = Buffer.from(bytes);
  later.writeUInt8(0x01, 3);
  for (const wrong of [
    bytes.subarray(0, -16),
    Buffer.concat([bytes, Buffer.alloc(16)]),
    Buffer.from([0x01, ...bytes.subarray(3, 19)]),
    later,
  ])
    await expect(
      backend.subscribeCompletion({ cursor: wrong.toString("base64url") }),
    ).rejects.toMatchObject({ code: "invalid_offset" });
});

test("a waiting feed survives that its stream goes, and the whole store", async () => {
  const feed = await backend.subscribeCompletion({});
  const events = feed[Symbol.asyncIterator]();
  for (const remove of [
    async () => {
      for (let cell = 0; cell < CELLS; cell++)
        await client.del(`${prefix}:{${cell}}:e`);
    },
    () => removeKeys(client, prefix),
  ]) {
    const waiting = events.next();
    await remove();
    // A process of its own, which remembers nothing of the time before.
    const other = await valkeyBackend({ url, prefix, cells: CELLS });
    const { executionId } = await other.createExecution({
      executionKind: "k",
      laneId: "new",
      namespace: "new",
    });
    const { claimed } = await other.claimMany({
      ...worker,
      lanes: ["new"],
      max: 1,
    });
    await other.complete({ handle: claimed[0]!.handle });
    expect((await waiting).value).toMatchObject({
      executionId,
      laneId: "new",
      namespace: "new",
    });
    await other.close();
  }
  await events.return?.();
});

test("lists go by creation and searches from the newest, page by page over all cells", async () => {
  const ids = await ended(25);
  const listed: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await backend.listExecutions({
      limit: 4,
      lanes: ["lane-1"],
      ...(cursor === undefined ? {} : { cursor }),
    });
    listed.push(...page.executions);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  expect(listed).toEqual(ids.filter((_id, n) => n % 2 === 1));

  const match = { all: [{ key: "parity", value: "0" }] };
  const created: number[] = [];
  const found = new Set<string>();
  do {
    const page = await backend.searchByTags({
      match,
      limit: 4,
      ...(cursor === undefined ? {} : { cursor }),
    });
    for (const entry of page.entries) {
      created.push(entry.createdAtMs);
      found.add(entry.executionId);
    }
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  expect(created).toEqual([...created].sort((a, b) => b - a));
  expect(found).toEqual(new Set(ids.filter((_id, n) => n % 2 === 0)));
  expect(created).toHaveLength(found.size);
  expect(await backend.countByTags({ match })).toBe(found.size);
});
