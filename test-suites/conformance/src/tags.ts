import type { EngineBackend, TagQuery } from "@flowfabric/core";
import fc from "fast-check";
import { expect } from "vitest";

import {
  eventTypes,
  expectRefused,
  expectRefusedUnchanged,
} from "./assertions.js";
import { completed, lane, running, submitted, UNKNOWN_ID } from "./builders.js";
import { group } from "./harness.js";
import { reproducible, scaled } from "./settings.js";

async function searchAll(
  backend: EngineBackend,
  query: TagQuery,
  limit = 100,
): Promise<string[]> {
  const ids: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await backend.searchByTags({
      ...query,
      limit,
      ...(cursor === undefined ? {} : { cursor }),
    });
    ids.push(...page.entries.map((entry) => entry.executionId));
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return ids;
}

export const tagsConformance = group("tags", (test) => {
  test("a tag is set in any phase and the last write wins", async ({
    backend,
  }) => {
    for (const { executionId } of [
      await submitted(backend),
      await running(backend),
      await completed(backend),
    ]) {
      const events = await eventTypes(backend, executionId);
      await backend.setExecutionTag({ executionId, key: "a", value: "1" });
      await backend.setExecutionTag({ executionId, key: "a", value: "2" });
      expect(await backend.getExecutionTag({ executionId, key: "a" })).toBe(
        "2",
      );
      expect(
        await backend.getExecutionTag({ executionId, key: "b" }),
      ).toBeUndefined();
      expect(await backend.describeExecution({ executionId })).toMatchObject({
        tags: { a: "2" },
      });
      // A tag is no transition.
      expect(await eventTypes(backend, executionId)).toEqual(events);
    }
  });

  test("a new tag counts as a change of the execution, not of its state", async ({
    backend,
    passTime,
  }) => {
    const { executionId } = await submitted(backend);
    const before = await backend.describeExecution({ executionId });
    await passTime(1_000);
    await backend.setExecutionTag({ executionId, key: "a", value: "1" });
    const after = await backend.describeExecution({ executionId });
    expect(after!.lastMutationAtMs).toBeGreaterThan(before!.lastMutationAtMs);
    expect(after!.lastTransitionAtMs).toBe(before!.lastTransitionAtMs);
  });

  test("keys are words of lower case, ours excepted; sizes are bytes", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend);
    const set = (key: string, value = "v") =>
      backend.setExecutionTag({ executionId, key, value });
    for (const key of ["a", "a.b", "a_b-c.1", "k".repeat(128)]) await set(key);
    for (const key of [
      "",
      "A",
      "1a",
      ".a",
      "a b",
      "ä",
      "ff.mine",
      "k".repeat(129),
    ]) {
      await expectRefused(set(key), "invalid_tag_key", { key });
      await expectRefused(
        backend.getExecutionTag({ executionId, key }),
        "invalid_tag_key",
      );
    }
    await set("a", "ä".repeat(128));
    await expectRefused(set("a", `${"ä".repeat(128)}x`), "invalid_input");
    await set("a", "");
    expect(await backend.getExecutionTag({ executionId, key: "a" })).toBe("");
  });

  test("an execution has 32 tags at most, and any of them can be rewritten", async ({
    backend,
  }) => {
    const tags = Object.fromEntries(
      Array.from({ length: 32 }, (_unused, n) => [`t${n}`, "v"]),
    );
    const { executionId } = await submitted(backend, { tags });
    await backend.setExecutionTag({ executionId, key: "t31", value: "w" });
    await expectRefusedUnchanged(
      backend,
      executionId,
      () => backend.setExecutionTag({ executionId, key: "t32", value: "v" }),
      "invalid_input",
    );
    await expectRefused(
      backend.setExecutionTag({
        executionId: UNKNOWN_ID,
        key: "Bad",
        value: "v",
      }),
      "invalid_tag_key",
    );
    await expectRefused(
      backend.setExecutionTag({
        executionId: UNKNOWN_ID,
        key: "a",
        value: "v",
      }),
      "execution_not_found",
    );
  });

  test("a search sees a tag at once and its old value no more", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend, { tags: { a: "1" } });
    const find = (value: string) =>
      searchAll(backend, { match: { all: [{ key: "a", value }] } });
    expect(await find("1")).toEqual([executionId]);
    await backend.setExecutionTag({ executionId, key: "a", value: "2" });
    expect(await find("1")).toEqual([]);
    expect(await find("2")).toEqual([executionId]);
  });

  test("an entry brings state, age and all tags", async ({ backend }) => {
    const { executionId } = await running(backend, {
      tags: { a: "1", b: "2" },
    });
    const snapshot = await backend.describeExecution({ executionId });
    const { entries } = await backend.searchByTags({
      match: { any: [{ key: "b", value: "2" }] },
    });
    expect(entries).toEqual([
      {
        executionId,
        publicState: "active",
        createdAtMs: snapshot?.createdAtMs,
        tags: { a: "1", b: "2" },
      },
    ]);
  });

  test("bounds of the time of creation are exclusive", async ({
    backend,
    passTime,
  }) => {
    const all = [];
    for (let n = 0; n < 3; n++) {
      const { executionId } = await submitted(backend, { tags: { a: "1" } });
      all.push((await backend.describeExecution({ executionId }))!);
      await passTime(100);
    }
    const match = { all: [{ key: "a", value: "1" }] };
    expect(
      await searchAll(backend, {
        match,
        createdAfterMs: all[0]!.createdAtMs,
        createdBeforeMs: all[2]!.createdAtMs,
      }),
    ).toEqual([all[1]!.executionId]);
  });

  test("a count is exact, however many there are", async ({ backend }) => {
    const match = { all: [{ key: "a", value: "1" }] };
    for (let count = 1; count <= 12; count++) {
      await submitted(backend, { tags: { a: "1" } });
      expect(await backend.countByTags({ match })).toBe(count);
    }
  });

  test("a query has 1 to 16 conditions", async ({ backend }) => {
    const conditions = (count: number) =>
      Array.from({ length: count }, (_unused, n) => ({
        key: `k${n}`,
        value: "v",
      }));
    const ask = (all: number, any: number) =>
      backend.countByTags({
        match: { all: conditions(all), any: conditions(any) },
      });
    expect(await ask(8, 8)).toBe(0);
    for (const [all, any] of [
      [0, 0],
      [17, 0],
      [8, 9],
    ] as const)
      await expectRefused(ask(all, any), "invalid_input");
    await expectRefused(
      backend.searchByTags({
        match: { all: conditions(1) },
        cursor: "not a cursor",
      }),
      "invalid_input",
    );
    expect(
      await backend.searchByTags({ match: { all: conditions(1) }, limit: 0 }),
    ).toEqual({ entries: [] });
  });

  test("pages stay stable while others insert", async ({
    backend,
    passTime,
  }) => {
    const ids: string[] = [];
    const add = async () => {
      await passTime(5);
      return (await submitted(backend, { tags: { a: "1" } })).executionId;
    };
    for (let n = 0; n < 6; n++) ids.unshift(await add());
    const match = { all: [{ key: "a", value: "1" }] };
    const first = await backend.searchByTags({ match, limit: 3 });
    await add();
    const second = await backend.searchByTags({
      match,
      limit: 10,
      cursor: first.nextCursor!,
    });
    expect(
      [...first.entries, ...second.entries].map((entry) => entry.executionId),
    ).toEqual(ids);
  });

  test("search, pages and count agree with looking at every execution", async (bench) => {
    const { backend } = bench;
    const tags = fc.dictionary(
      fc.constantFrom("a", "b", "c"),
      fc.constantFrom("1", "2"),
      { maxKeys: 3 },
    );
    const conditions = fc.array(
      fc.record({
        key: fc.constantFrom("a", "b", "c"),
        value: fc.constantFrom("1", "2", "3"),
      }),
      { maxLength: 2 },
    );
    const lanes = [lane(), lane()];
    const all: {
      executionId: string;
      createdAtMs: number;
      laneId: string;
    }[] = [];
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          tags,
          laneId: fc.constantFrom(...lanes),
          all: conditions,
          any: conditions,
          limit: fc.integer({ min: 1, max: 5 }),
          retag: fc.nat(100),
        }),
        async (step) => {
          await bench.passTime(1);
          const one = await submitted(backend, {
            laneId: step.laneId,
            tags: step.tags,
          });
          const { createdAtMs } = (await backend.describeExecution(one))!;
          all.unshift({ ...one, createdAtMs });
          const changed = all[step.retag % all.length]!;
          await backend.setExecutionTag({
            executionId: changed.executionId,
            key: "a",
            value: "3",
          });
          if (step.all.length + step.any.length === 0) return;

          const query = {
            match: { all: step.all, any: step.any },
            lanes: [step.laneId],
          };
          const expected = [];
          for (const candidate of all) {
            if (candidate.laneId !== step.laneId) continue;
            const snapshot = await backend.describeExecution(candidate);
            const has = ({ key, value }: { key: string; value: string }) =>
              snapshot!.tags[key] === value;
            if (
              step.all.every(has) &&
              (step.any.length === 0 || step.any.some(has))
            )
              expected.push(candidate);
          }
          expected.sort(
            (a, b) =>
              b.createdAtMs - a.createdAtMs ||
              (a.executionId < b.executionId ? -1 : 1),
          );
          expect(await searchAll(backend, query, step.limit)).toEqual(
            expected.map((candidate) => candidate.executionId),
          );
          expect(await backend.countByTags(query)).toBe(expected.length);
        },
      ),
      { ...reproducible(), numRuns: scaled(60, 15) },
    );
  });
});
