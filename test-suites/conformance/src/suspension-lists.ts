import type { EngineBackend } from "@flowfabric/core";
import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import { HOUR_MS, running, submitted, UNKNOWN_ID, uuid } from "./builders.js";
import { group } from "./harness.js";
import { scaled } from "./settings.js";
import {
  effectOf,
  keyed,
  suspendArgs,
  suspended,
  waitpointOf,
} from "./suspension-builders.js";

const uuidOf = (executionId: string) =>
  executionId.slice(executionId.indexOf("}") + 2);

async function allSuspended(
  backend: EngineBackend,
  limit: number,
  between: (page: readonly string[]) => Promise<unknown> = async () => {},
): Promise<{ executionId: string; suspendedAtMs: number }[]> {
  const entries: { executionId: string; suspendedAtMs: number }[] = [];
  let cursor: string | undefined;
  do {
    const page = await backend.listSuspended({
      limit,
      ...(cursor === undefined ? {} : { cursor }),
    });
    expect(page.entries.length).toBeLessThanOrEqual(limit);
    entries.push(...page.entries);
    cursor = page.nextCursor;
    await between(page.entries.map(({ executionId }) => executionId));
  } while (cursor !== undefined);
  return entries;
}

export const suspendedListsConformance = group("suspended lists", (test) => {
  test("what is suspended is listed by when it suspended, with timeout and reason", async (bench) => {
    const { backend } = bench;
    const first = await suspended(backend, { reasonCode: "manual_pause" });
    await bench.passTime(1_000);
    const timeoutAtMs = (await backend.serverTimeMs()) + HOUR_MS;
    const second = await suspended(backend, { timeoutAtMs });
    await submitted(backend);
    const gone = await suspended(backend);
    await effectOf(backend, gone.target);

    const { entries, nextCursor } = await backend.listSuspended({});
    const at = async (executionId: string) =>
      (await backend.describeExecution({ executionId }))!.lastTransitionAtMs;
    expect(entries).toEqual([
      {
        executionId: first.executionId,
        suspendedAtMs: await at(first.executionId),
        reason: "manual_pause",
      },
      {
        executionId: second.executionId,
        suspendedAtMs: await at(second.executionId),
        timeoutAtMs,
        reason: "waiting_for_signal",
      },
    ]);
    expect(nextCursor).toBeUndefined();
    expect(await backend.listSuspended({ limit: 0 })).toEqual({ entries: [] });
    const partition = first.executionId.slice(
      0,
      first.executionId.indexOf("}") + 1,
    );
    const ofOne = await backend.listSuspended({ partition });
    expect(ofOne.entries.map(({ executionId }) => executionId)).toEqual(
      entries
        .map(({ executionId }) => executionId as string)
        .filter((executionId) => executionId.startsWith(partition)),
    );
    await expectRefused(
      backend.listSuspended({ cursor: "x" }),
      "invalid_input",
    );
    await expectRefused(
      backend.listSuspended({ partition: "x" }),
      "invalid_input",
    );
    expect(
      (await backend.listExecutions({ publicStates: ["suspended"] }))
        .executions,
    ).toEqual([first.executionId, second.executionId]);
  });

  test(
    "pages neither repeat nor skip what stays, while others are resumed",
    { timeoutMs: 180_000 },
    async ({ backend }) => {
      const total = scaled(2_500, 300);
      await keyed(backend);
      const ids: string[] = [];
      const make = async (lane: number) => {
        const { handle, executionId } = await running(backend, {
          laneId: `pages-${lane}`,
        });
        await backend.suspend({ handle, ...suspendArgs() });
        ids.push(executionId);
      };
      for (let n = 0; n < total; n += 10)
        await Promise.all(
          Array.from({ length: 10 }, (_unused, at) => make(at)),
        );

      const all = await allSuspended(backend, 1_000);
      expect(all.map(({ executionId }) => executionId).sort()).toEqual(
        [...ids].sort(),
      );
      const keys = all.map(
        ({ suspendedAtMs, executionId }) =>
          [suspendedAtMs, uuidOf(executionId)] as const,
      );
      expect(keys).toEqual(
        [...keys].sort((a, b) => a[0] - b[0] || (a[1] < b[1] ? -1 : 1)),
      );

      const resumed = new Set<string>();
      const resume = async (executionId: string) => {
        if (resumed.has(executionId)) return;
        resumed.add(executionId);
        await backend.resumeExecution({ executionId });
      };
      // The last row of each page, where the next one begins, and some that are still to come.
      const listed = await allSuspended(backend, 37, async (page) => {
        if (page.length > 0) await resume(page.at(-1)!);
        await resume(all.at(-1 - resumed.size)!.executionId);
      });
      const seen = listed.map(({ executionId }) => executionId);
      expect(new Set(seen).size).toBe(seen.length);
      const stayed = all
        .map(({ executionId }) => executionId)
        .filter((id) => !resumed.has(id));
      expect(seen.filter((id) => !resumed.has(id))).toEqual(stayed);
    },
  );

  test("waitpoints are listed by id, past all that are closed", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId, handle } = claimed;
    const open: string[] = [];
    for (let n = 0; n < 150; n++) {
      const { waitpointId } = await waitpointOf(backend, claimed, "a");
      if (n % 50 === 49) open.push(waitpointId);
      else await backend.closeWaitpoint({ handle, waitpointId });
    }
    const list = (change: object = {}) =>
      backend.listPendingWaitpoints({ executionId, ...change });
    const ids = ({ entries }: Awaited<ReturnType<typeof list>>) =>
      entries.map(({ waitpointId }) => waitpointId as string);
    expect(ids(await list())).toEqual([...open].sort());
    const first = await list({ limit: 2 });
    expect(first.entries).toHaveLength(2);
    const rest = await list({ limit: 2, after: first.nextCursor });
    expect([...ids(first), ...ids(rest)]).toEqual([...open].sort());
    expect(rest.nextCursor).toBeUndefined();
    // Brought into its bounds instead of refused.
    expect((await list({ limit: 0 })).entries).toHaveLength(1);
    expect((await list({ limit: 5_000 })).entries).toHaveLength(3);
    await expectRefused(
      backend.listPendingWaitpoints({ executionId: UNKNOWN_ID }),
      "execution_not_found",
    );
    await expectRefused(
      backend.readWaitpointToken({
        executionId: UNKNOWN_ID,
        waitpointId: uuid(),
      }),
      "execution_not_found",
    );
    expect(
      await backend.readWaitpointToken({ executionId, waitpointId: uuid() }),
    ).toBeUndefined();
  });
});
