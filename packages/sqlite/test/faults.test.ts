/** Files that cannot be used: each refusal says which it is, leaves the file as it was, and is over with its cause. */
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { execFileSync } from "node:child_process";
import { join } from "node:path";

import type { EngineBackend, ExecutionId } from "@flowfabric/core";
import { expect, onTestFinished, test } from "vitest";

import { migrations } from "../src/generated/migrations.js";
import {
  newFolder,
  newPath,
  open,
  openRaw,
  openWithConnection,
  Peer,
  refusalOf,
  type PeerError,
} from "./files.js";

/** A closed store with some executions in it. */
async function filledStore(count = 50): Promise<{
  path: string;
  executionIds: ExecutionId[];
}> {
  const path = newPath();
  const backend = await open({ path });
  const executionIds = await fill(backend, count);
  await backend.close();
  return { path, executionIds };
}

async function fill(
  backend: EngineBackend,
  count: number,
): Promise<ExecutionId[]> {
  const answers = await backend.submitMany({
    items: Array.from({ length: count }, () => ({
      executionKind: "filler",
      inputPayload: Buffer.alloc(2_000, "x"),
    })),
  });
  return answers.flatMap((answer) =>
    answer.kind === "created" ? [answer.executionId] : [],
  );
}

async function readAll(backend: EngineBackend): Promise<ExecutionId[]> {
  const { executions } = await backend.listExecutions({ limit: 1_000 });
  for (const executionId of executions)
    await backend.readExecutionContext({ executionId });
  return executions;
}

test("a text file is no database, and keeps its text", async () => {
  const path = newPath();
  writeFileSync(path, "This is my shopping list.\n".repeat(200));
  const before = readFileSync(path);

  const refusal = await refusalOf(open({ path }));

  expect(refusal).toMatchObject({ code: "transport", kind: "Transport" });
  expect(refusal.message).toContain("not a SQLite database");
  expect(readFileSync(path).equals(before)).toBe(true);
});

test("a damaged file is refused as that, and its backup opens again with everything in it", async () => {
  const { path, executionIds } = await filledStore();
  const backup = `${path}.backup`;
  copyFileSync(path, backup);
  const file = openSync(path, "r+");
  for (let at = 4_096; at < statSync(path).size; at += 512)
    writeSync(file, Buffer.alloc(256, 0xa5), 0, 256, at);
  closeSync(file);
  const damaged = readFileSync(path);

  const refusal = await refusalOf(open({ path }).then(readAll));

  expect(refusal).toMatchObject({ code: "transport", kind: "Transport" });
  expect(refusal.message).toContain("damaged");
  expect(readFileSync(path).equals(damaged)).toBe(true);
  copyFileSync(backup, path);
  expect(await readAll(await open({ path }))).toEqual(executionIds);
});

test("a file that lost its second half is refused as damaged", async () => {
  const { path } = await filledStore();
  truncateSync(path, Math.floor(statSync(path).size / 2 / 4_096) * 4_096);

  const refusal = await refusalOf(open({ path }).then(readAll));

  expect(refusal).toMatchObject({ code: "transport" });
  expect(refusal.message).toContain("damaged");
});

test("another program's database is refused and not changed by a byte", async () => {
  for (const schema of [
    "CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (7)",
    // A name that many programs use for the same purpose.
    "CREATE TABLE migrations (id INTEGER PRIMARY KEY, name TEXT)",
    "CREATE TABLE migrations (version INTEGER, name TEXT, checksum TEXT)",
  ]) {
    const path = newPath();
    const theirs = openRaw(path);
    theirs.exec(schema);
    theirs.close();
    const before = readFileSync(path);

    const refusal = await refusalOf(open({ path }));

    expect(refusal).toMatchObject({
      code: "corruption",
      detail: { context: "schema" },
    });
    expect(readFileSync(path).equals(before)).toBe(true);
  }
});

test("a store of a newer library is refused, and stays as it is for that library", async () => {
  const { path, executionIds } = await filledStore();
  const newer = openRaw(path);
  newer
    .prepare("INSERT INTO migrations VALUES (?, 'from_the_future', 'x', 0)")
    .run(migrations.length + 1);
  newer.close();
  const before = readFileSync(path);

  const refusal = await refusalOf(open({ path }));

  expect(refusal).toMatchObject({
    code: "library_version_mismatch",
    kind: "Unavailable",
    detail: {
      library: `schema ${migrations.length}`,
      store: `schema ${migrations.length + 1}`,
    },
  });
  expect(readFileSync(path).equals(before)).toBe(true);
  const older = openRaw(path);
  older.exec("DELETE FROM migrations WHERE name = 'from_the_future'");
  older.close();
  expect(await readAll(await open({ path }))).toEqual(executionIds);
});

test("a folder that does not exist is named as the cause", async () => {
  const refusal = await refusalOf(
    open({ path: join(newFolder(), "nowhere", "store.db") }),
  );

  expect(refusal).toMatchObject({ code: "transport" });
  expect(refusal.message).toContain("folder");
});

/** An ordinary user: permissions do not bind root. */
const NOBODY = 65_534;

/** Another process, without root's rights where this one has them. */
async function unprivileged(): Promise<Peer> {
  const peer = new Peer();
  if (process.getuid?.() === 0) await peer.ask("become", { uid: NOBODY });
  return peer;
}

test("a file that may only be read is refused, and opens once it may be written", async () => {
  const { path, executionIds } = await filledStore();
  chmodSync(join(path, ".."), 0o777);
  chmodSync(path, 0o444);
  const before = readFileSync(path);
  const peer = await unprivileged();

  const refused = peer.ask("open", { options: { path } });

  await expect(refused).rejects.toMatchObject({
    code: "transport",
  } satisfies Partial<PeerError>);
  await expect(refused).rejects.toThrow(/read and written|cannot be written/);
  expect(readFileSync(path).equals(before)).toBe(true);
  chmodSync(path, 0o666);
  await peer.ask("open", { options: { path } });
  expect(
    await peer.ask("call", { operation: "listExecutions", input: {} }),
  ).toEqual({ executions: executionIds });
});

test("a folder that may only be read is refused, and serves once it may be written", async () => {
  const { path, executionIds } = await filledStore();
  const folder = join(path, "..");
  chmodSync(path, 0o666);
  chmodSync(folder, 0o555);
  const before = readFileSync(path);
  const peer = await unprivileged();

  const refused = peer.ask("open", { options: { path } });
  await expect(refused).rejects.toMatchObject({ code: "transport" });
  await expect(refused).rejects.toThrow(/folder/);
  expect(readFileSync(path).equals(before)).toBe(true);
  const newOne = peer.ask("open", { options: { path: `${path}.new` } });
  await expect(newOne).rejects.toMatchObject({ code: "transport" });
  await expect(newOne).rejects.toThrow(/folder/);

  chmodSync(folder, 0o777);
  await peer.ask("open", { options: { path } });
  expect(
    await peer.ask("call", { operation: "listExecutions", input: {} }),
  ).toEqual({ executions: executionIds });
});

interface Disk {
  readonly backend: EngineBackend;
  readonly path: string;
  /** Somebody has freed some space. */
  free(): void;
}

/** SQLite's own limit answers exactly as a full disk does where a page is wanted. */
async function limitedFile(): Promise<Disk> {
  const path = newPath();
  const { backend, connection } = await openWithConnection({ path });
  const pages = connection.pragma("page_count", { simple: true }) as number;
  connection.pragma(`max_page_count = ${pages + 100}`);
  return {
    backend,
    path,
    free: () => void connection.pragma("max_page_count = 1000000"),
  };
}

/** A real one, of one megabyte; where this process may not mount, there is none. */
async function tinyFileSystem(): Promise<Disk | undefined> {
  const folder = newFolder();
  const disk = join(folder, "disk");
  mkdirSync(disk);
  const mount = (...options: string[]) =>
    execFileSync("mount", ["-t", "tmpfs", "-o", ...options, "tmpfs", disk], {
      stdio: "ignore",
    });
  try {
    mount("size=1m");
  } catch {
    return undefined;
  }
  onTestFinished(() => void execFileSync("umount", ["-l", disk]));
  const path = join(disk, "store.db");
  return {
    backend: await open({ path }),
    path,
    free: () => mount("remount,size=16m"),
  };
}

test("a full disk refuses what does not fit, keeps what was answered, and goes on once there is space", async () => {
  const disks = [await limitedFile(), await tinyFileSystem()];
  for (const disk of disks.filter((one) => one !== undefined)) {
    const { backend, path, free } = disk;
    const kept = await fill(backend, 10);
    const submit = async (name: string): Promise<string> => {
      const { executionId } = await backend.createExecution({
        executionKind: name,
        inputPayload: Buffer.alloc(50_000, "x"),
      });
      return executionId;
    };
    const answered: string[] = [...kept];
    let refused;
    for (let tries = 0; tries < 200 && refused === undefined; tries++)
      // Several at once, so that some share a commit with one that does not fit.
      for (const outcome of await Promise.allSettled(
        Array.from({ length: 3 }, () => submit("big")),
      )) {
        if (outcome.status === "fulfilled") answered.push(outcome.value);
        else refused = outcome.reason as unknown;
      }

    expect(refused).toMatchObject({ code: "transport", kind: "Transport" });
    expect(String(refused)).toContain("disk is full");
    expect(await readAll(backend)).toEqual(answered);
    free();
    answered.push(await submit("after"));
    expect(await readAll(backend)).toEqual(answered);
    expect(await backend.reconcileExecutionIndex({})).toEqual({
      processed: 0,
      errors: 0,
    });
    await backend.close();
    expect(await readAll(await open({ path }))).toEqual(answered);
  }
});

test("a log cut off anywhere loses the last transactions and nothing else", async () => {
  const path = newPath();
  const backend = await open({ path });
  const executionIds: ExecutionId[] = [];
  for (let i = 0; i < 30; i++)
    executionIds.push(
      (await backend.createExecution({ executionKind: "torn" })).executionId,
    );
  const file = readFileSync(path);
  const log = readFileSync(`${path}-wal`);

  // As after a power failure with durability 'normal'.
  let longest = 0;
  for (let round = 0; round < 20; round++) {
    const torn = newPath();
    writeFileSync(torn, file);
    const length =
      round === 0 ? log.length : Math.floor(Math.random() * log.length);
    writeFileSync(`${torn}-wal`, log.subarray(0, length));
    const reopened = await open({ path: torn });
    const left = await readAll(reopened);
    longest = Math.max(longest, left.length);

    expect(left).toEqual(executionIds.slice(0, left.length));
    for (const executionId of left)
      expect(await reopened.readEvents({ executionId })).toMatchObject({
        events: [{ type: "created" }],
      });
    await reopened.createExecution({ executionKind: "next" });
    await reopened.close();
    const check = openRaw(torn);
    expect(check.pragma("integrity_check", { simple: true })).toBe("ok");
  }
  expect(longest).toBe(executionIds.length);
});
