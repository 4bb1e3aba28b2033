/** Processes killed between any two instructions: the store opens again, and nothing in it is half done. */
import { describe, expect, test } from "vitest";

import { findViolations, listAll } from "../src/invariants.js";
import { pause, Program } from "./fleet.js";
import {
  createBench,
  scaled,
  tell,
  TIMEOUT_MS,
  type CrashHarness,
} from "./harness.js";

const BATCH_SIZE = 40;
/** Long enough for a few batches, short enough to be killed in the first one too. */
const KILL_WITHIN_MS = 250;

export function interruptionTests(harness: CrashHarness): void {
  describe(
    `${harness.name}: processes killed at any instant`,
    { timeout: TIMEOUT_MS },
    () => {
      for (const atomicity of ["perItem", "allOrNothing"] as const) {
        test(`a process killed while it submits batches (${atomicity}) leaves whole batches, and all that were answered`, async () => {
          const { store, open, damage } = await createBench(harness);
          const rounds = scaled(15, 3);
          const answered = new Set<number>();
          let firstBatch = 0;
          for (let round = 0; round < rounds; round++, firstBatch += 10_000) {
            const submitter = await Program.ready("submitter", {
              store,
              firstBatch,
              batchSize: BATCH_SIZE,
              atomicity,
            });
            await pause(Math.random() * KILL_WITHIN_MS);
            await submitter.kill();
            for (const { batch } of submitter.all("submitted"))
              answered.add(batch);
          }

          const backend = await open();
          expect(await damage()).toEqual([]);
          const sizes = new Map<string, number>();
          for (const executionId of await listAll(backend)) {
            const { tags, inputPayload } = await backend.readExecutionContext({
              executionId,
            });
            const batch = tags["batch"]!;
            sizes.set(batch, (sizes.get(batch) ?? 0) + 1);
            const input = JSON.parse(Buffer.from(inputPayload).toString());
            expect(input).toMatchObject({ batch: Number(batch) });
          }
          tell(
            `${rounds} kills, ${answered.size} batches answered, ${sizes.size} stored`,
          );
          expect(new Set(sizes.values())).toEqual(new Set([BATCH_SIZE]));
          for (const batch of answered)
            expect(sizes.get(String(batch))).toBe(BATCH_SIZE);
          expect(
            await backend.countByTags({
              match: { any: [{ key: "batch", value: "0" }] },
            }),
          ).toBe(sizes.get("0") ?? 0);
          expect(await findViolations(backend)).toEqual([]);
        });
      }

      test("a process killed while it claims and completes batches leaves every execution in one consistent state", async () => {
        const { store, open, damage } = await createBench(harness);
        const backend = await open();
        const rounds = scaled(20, 4);
        const completed = new Set<string>();
        for (let round = 0; round < rounds; round++) {
          await backend.submitMany({
            items: Array.from({ length: 300 }, () => ({
              executionKind: "work",
              inputPayload: Buffer.alloc(500, "x"),
            })),
          });
          const claimer = await Program.ready("claimer", {
            store,
            leaseTtlMs: 50,
            max: 10,
          });
          await pause(Math.random() * KILL_WITHIN_MS);
          await claimer.kill();
          for (const { executionId } of claimer.all("completed"))
            completed.add(executionId);
          expect(await damage()).toEqual([]);
        }

        tell(`${rounds} kills, ${completed.size} completions answered`);
        for (const executionId of completed)
          expect(
            await backend.describeExecution({ executionId }),
          ).toMatchObject({
            publicState: "completed",
          });
        expect(await findViolations(backend)).toEqual([]);
      });

      test("a process killed while it makes a new store leaves one that opens", async () => {
        const rounds = scaled(25, 8);
        for (let round = 0; round < rounds; round++) {
          const { store, open, damage } = await createBench(harness);
          const opener = Program.start("opener", { store });
          await opener.told("opening");
          // Opening and the first submission take about that long.
          await pause(Math.random() * 40);
          await opener.kill();

          const backend = await open();
          await backend.createExecution({ executionKind: "work" });
          expect(await damage()).toEqual([]);
          expect(await findViolations(backend)).toEqual([]);
        }
      });
    },
  );
}
