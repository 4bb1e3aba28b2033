/** The write-ahead log does not grow for ever. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { readdirSync, statSync } from "node:fs";
import { basename, dirname } from "node:path";
import { fileURLToPath } from "node:url";

import type { EngineBackend } from "@flowfabric/core";
import { expect, test } from "vitest";

import {
  longestStall,
  newPath,
  open,
  openRaw,
  openWithConnection,
  tell,
} from "./files.js";

const MIB = 1_048_576;

function logBytes(path: string): number {
  return statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
}

/** Some megabytes of payload in one commit. */
async function submitMegabytes(
  backend: EngineBackend,
  count: number,
): Promise<void> {
  for (let i = 0; i < count; i += 4)
    await backend.submitMany({
      items: Array.from({ length: 4 }, () => ({
        executionKind: "large",
        inputPayload: Buffer.alloc(MIB - 100, "x"),
      })),
    });
}

const claim = {
  workerId: "worker",
  workerInstanceId: "worker-1",
  lanes: ["empty"],
  max: 1,
  leaseTtlMs: 30_000,
};

test("under load without readers in the way the log stays of one size", async () => {
  const path = newPath();
  const backend = await open({ path });

  const stall = await longestStall(submitMegabytes(backend, 320));

  tell(
    `log of ${(logBytes(path) / MIB).toFixed(0)} MiB after 320 MiB; longest stall ${stall.toFixed(0)} ms`,
  );
  expect(logBytes(path)).toBeLessThan(256 * MIB);
});

test("a log that a reader kept from starting over grows no more once the reader is gone", async () => {
  const path = newPath();
  const backend = await open({ path });
  await backend.createExecution({ executionKind: "first" });
  const reader = openRaw(path);
  reader.exec("BEGIN");
  reader.prepare("SELECT count(*) FROM executions").get();

  await submitMegabytes(backend, 160);
  const grown = logBytes(path);
  expect(grown).toBeGreaterThan(160 * MIB);
  reader.exec("COMMIT");
  await backend.claimMany(claim);
  // It is moved into the file while the load goes on, sooner or later; from then on it is long enough.
  const sizes = [grown];
  do {
    await submitMegabytes(backend, 60);
    sizes.push(logBytes(path));
  } while (sizes.at(-1)! > sizes.at(-2)! && sizes.length < 10);

  tell(
    `log of ${sizes.map((bytes) => (bytes / MIB).toFixed(0)).join(", then ")} MiB`,
  );
  expect(sizes.at(-1)).toBeLessThanOrEqual(sizes.at(-2)!);
});

test("a store that is closed leaves its file alone behind", async () => {
  const path = newPath();
  const backend = await open({ path });
  await submitMegabytes(backend, 60);

  await backend.close();

  expect(readdirSync(dirname(path))).toEqual([basename(path)]);
  expect(openRaw(path).pragma("integrity_check", { simple: true })).toBe("ok");
});

test("a program ends also where it does not close its store", async () => {
  const program = fileURLToPath(new URL("unclosed.mjs", import.meta.url));
  const child = fork(program, [newPath()], { execArgv: [] });

  const [code] = await once(child, "exit");

  expect(code).toBe(0);
});

test("a checkpoint that cannot be made now disturbs no claim", async () => {
  const path = newPath();
  const { backend, connection } = await openWithConnection({ path });
  connection.pragma("wal_autocheckpoint = 0");
  const { executionId } = await backend.createExecution({
    executionKind: "first",
  });
  await submitMegabytes(backend, 132);
  const reader = openRaw(path);
  reader.exec("BEGIN");
  reader.prepare("SELECT count(*) FROM executions").get();

  const { claimed } = await backend.claimMany({ ...claim, lanes: ["default"] });

  expect(claimed).toMatchObject([{ executionId }]);
});
