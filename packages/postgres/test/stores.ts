/** Stores in schemas of their own, looked at from outside, and other processes at the same schema. */
import { fork } from "node:child_process";
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";

import {
  isEngineError,
  type EngineBackend,
  type EngineError,
} from "@flowfabric/core";
import pg from "pg";
import { inject, onTestFinished } from "vitest";

import { postgresBackend } from "../src/backend.js";
import type { PostgresOptions } from "../src/options.js";

export const url = inject("postgresUrl");

/** Gone with the test. */
export function newSchema(): string {
  const schema = `unit_${randomUUID().replaceAll("-", "")}`;
  onTestFinished(async () => {
    await query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`);
  });
  return schema;
}

/** Closed with the test, where it is not closed before. */
export async function open(
  options: Partial<PostgresOptions> & { schema: string },
): Promise<EngineBackend> {
  const backend = await postgresBackend({
    ...(options.pool === undefined
      ? { connectionString: url, maxConnections: 4 }
      : {}),
    ...options,
  });
  onTestFinished(() => backend.close());
  return backend;
}

/** A connection of a program that knows nothing of ours. */
export async function connect(
  config: pg.ClientConfig = { connectionString: url },
): Promise<pg.Client> {
  const client = new pg.Client(config);
  client.on("error", () => {});
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}

/** One statement on a connection that is gone afterwards. */
export async function query<Row extends pg.QueryResultRow>(
  text: string,
  values: unknown[] = [],
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Row>(text, values)).rows;
  } finally {
    await client.end();
  }
}

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

/** Another process at the same schema; see peer.mjs for what it can do. */
export class Peer {
  readonly #child = fork(fileURLToPath(new URL("peer.mjs", import.meta.url)), {
    // Not vitest's own flags: with those the packages' sources would be loaded.
    execArgv: [],
  });
  readonly #answers = new Map<
    number,
    (message: { answer?: unknown; error?: { message: string } }) => void
  >();
  #requests = 0;

  constructor() {
    this.#child.on(
      "message",
      (message: {
        id: number;
        answer?: unknown;
        error?: { message: string };
      }) => this.#answers.get(message.id)?.(message),
    );
    onTestFinished(() => void this.#child.kill("SIGKILL"));
  }

  /** From now on it does nothing and says nothing, until {@link thaw}; its connections stay as they are. */
  freeze(): void {
    this.#child.kill("SIGSTOP");
  }
  thaw(): void {
    this.#child.kill("SIGCONT");
  }

  /** Rejects with what the other process was refused. */
  async ask(what: string, request: object = {}): Promise<unknown> {
    const id = ++this.#requests;
    const answered = new Promise<{
      answer?: unknown;
      error?: { message: string };
    }>((resolve) => this.#answers.set(id, resolve));
    this.#child.send({ id, do: what, ...request });
    const { answer, error } = await answered;
    if (error !== undefined)
      throw Object.assign(new Error(error.message), error);
    return answer;
  }
}

/** A claim on the lane that submissions go to by default. */
export const claim = {
  workerId: "worker",
  workerInstanceId: "worker-1",
  lanes: ["default"],
  max: 10,
  leaseTtlMs: 30_000,
};

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

/** Figures that were seen, for whoever reads the output. */
export function tell(line: string): void {
  console.log(`  ${line}`);
}

/** Promises hold on a machine that has time; one that is busy with other tests gets ten times as long. */
export const SLACK = 10;
