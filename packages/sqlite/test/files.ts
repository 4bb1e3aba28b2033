/** Stores in files of their own, looked at from outside, and a second process at the same file. */
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import {
  isEngineError,
  type EngineBackend,
  type EngineError,
} from "@flowfabric/core";
import SqliteDriver from "better-sqlite3";
import { onTestFinished, vi } from "vitest";

import { sqliteBackend } from "../src/backend.js";
import type { SqliteOptions } from "../src/options.js";

/** Gone with the test. */
export function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "flowfabric-sqlite-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export function newPath(): string {
  return join(newFolder(), "store.db");
}

/** Closed with the test, where it is not closed before. Most tests pull no plug. */
export async function open(
  options: Partial<SqliteOptions> & { path: string },
): Promise<EngineBackend> {
  const backend = await sqliteBackend({ durability: "normal", ...options });
  onTestFinished(() => backend.close());
  return backend;
}

/** A connection of a program that knows nothing of ours. */
export function openRaw(
  path: string,
  options: SqliteDriver.Options = {},
): SqliteDriver.Database {
  const database = new SqliteDriver(path, { timeout: 5_000, ...options });
  onTestFinished(() => void database.close());
  return database;
}

/** A store together with the very connection it works on. */
export async function openWithConnection(
  options: Partial<SqliteOptions> & { path: string },
): Promise<{ backend: EngineBackend; connection: SqliteDriver.Database }> {
  const used: SqliteDriver.Database[] = [];
  const spy = vi
    .spyOn(SqliteDriver.prototype, "prepare")
    .mockImplementation(function (
      this: SqliteDriver.Database,
      ...args: Parameters<SqliteDriver.Database["prepare"]>
    ) {
      used.push(this);
      return original.apply(this, args);
    });
  try {
    const backend = await open(options);
    return { backend, connection: used.at(-1)! };
  } finally {
    spy.mockRestore();
  }
}
// eslint-disable-next-line typescript/unbound-method -- called with the connection it is called on
const original = SqliteDriver.prototype.prepare;

/** What the call was refused with. */
export async function refusalOf(call: Promise<unknown>): Promise<EngineError> {
  const outcome = await call.then(
    (answer) => ({ answer }),
    (error: unknown) => ({ error }),
  );
  if ("answer" in outcome)
    throw new Error(`not refused: ${JSON.stringify(outcome.answer)}`);
  if (isEngineError(outcome.error)) return outcome.error;
  throw outcome.error;
}

export interface PeerError {
  readonly code?: string;
  readonly detail?: { readonly message?: string };
  readonly message: string;
}

/** Another process at the same file; see peer.mjs for what it can do. */
export class Peer {
  readonly #child = fork(fileURLToPath(new URL("peer.mjs", import.meta.url)), {
    // Not vitest's own flags: with those the packages' sources would be loaded.
    execArgv: [],
  });
  readonly #answers = new Map<
    number,
    (message: { answer?: unknown; error?: PeerError }) => void
  >();
  #requests = 0;

  constructor() {
    this.#child.on(
      "message",
      (message: { id: number; answer?: unknown; error?: PeerError }) =>
        this.#answers.get(message.id)?.(message),
    );
    onTestFinished(() => void this.#child.kill("SIGKILL"));
  }

  /** Rejects with what the other process was refused. */
  async ask(what: string, request: object = {}): Promise<unknown> {
    const id = ++this.#requests;
    const answered = new Promise<{ answer?: unknown; error?: PeerError }>(
      (resolve) => this.#answers.set(id, resolve),
    );
    this.#child.send({ id, do: what, ...request });
    const { answer, error } = await answered;
    if (error !== undefined)
      throw Object.assign(new Error(error.message), error);
    return answer;
  }
}

/** The longest time that the event loop stood still until the promise settled, in milliseconds. */
export async function longestStall(during: Promise<unknown>): Promise<number> {
  let longest = 0;
  let lookedAt = performance.now();
  const look = () => {
    longest = Math.max(longest, performance.now() - lookedAt);
    lookedAt = performance.now();
  };
  const timer = setInterval(look, 2);
  try {
    await during;
  } finally {
    clearInterval(timer);
    look();
  }
  return longest;
}

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

/** Nearest rank. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
}

/** Figures that were seen, for whoever reads the output. */
export function tell(line: string): void {
  console.log(`  ${line}`);
}

/** Promises hold on a machine that has time; one that is busy with other tests gets ten times as long. */
export const SLACK = 10;

/** Share of the durations; 1 is what CI runs. */
export const SCALE = Number(process.env["FLOWFABRIC_TEST_SCALE"] ?? "0.2");
