/**
 * Calls that answer when replicas have what they wrote. WAIT blocks what stands behind it on its connection, and counts
 * the replicas that have what this connection wrote: so these calls have a connection of their own, to each node. Those of
 * one tick share a WAIT, and what comes while one is under way goes together with the next.
 */
import { setTimeout as pause } from "node:timers/promises";

import { crc16, EngineError } from "@flowfabric/core";
import type { Cluster, Redis } from "ioredis";

import { connected } from "./connecting.js";
import type { Argument, Reply } from "./connection.js";
import type { ParsedOptions } from "./options.js";

export type CopiesWanted = NonNullable<ParsedOptions["waitForReplicas"]>;

/** What submits, also where it only finds what was submitted before, what signals, and what ends. */
const WAITING_CALLS: ReadonlySet<string> = new Set([
  "submit_many",
  "keep_key",
  "find_submitted",
  "deliver_signal",
  "deliver_approval",
  "end",
  "end_and_claim",
  "cancel",
  "cancel_own",
  "complete_execution",
  "fail_execution",
]);

/** Of a cluster that rearranges itself; the call was not carried out. */
const ELSEWHERE = /^(MOVED|ASK|TRYAGAIN|CLUSTERDOWN|READONLY)/;
const REDIRECTIONS_MAX = 16;
const REDIRECTION_MS = 100;

interface WaitingCall {
  readonly key: string;
  readonly name: string;
  readonly args: readonly Argument[];
  readonly resolve: (reply: readonly Reply[]) => void;
  readonly reject: (reason: unknown) => void;
}

/** What one node is asked, a batch at a time. */
interface Line {
  calls: WaitingCall[];
  isUnderWay: boolean;
}

export class Copies {
  readonly #client: Redis | Cluster;
  readonly #wanted: CopiesWanted;
  readonly #version: string;
  readonly #lines = new WeakMap<Redis, Line>();

  /** @param client a duplicate that nobody else uses; it connects here */
  constructor(
    client: Redis | Cluster,
    wanted: CopiesWanted,
    { version }: { readonly version: string },
  ) {
    this.#client = client;
    this.#wanted = wanted;
    this.#version = version;
    client.on("error", () => {});
  }

  /** @throws EngineError `invalid_input` where the server cannot do what is wanted; or what the driver throws */
  async open(answerTimeoutMs: number): Promise<void> {
    await connected(this.#client, answerTimeoutMs);
    if (!this.#wanted.fsync) return;
    try {
      await this.#client.call("WAITAOF", 1, 0, 1);
    } catch (error) {
      throw new EngineError(
        "invalid_input",
        {
          field: "waitForReplicas",
          reason: `fsync needs WAITAOF, of Valkey or Redis 7.2 and newer, and appendonly yes; the server says: ${messageOf(error)}`,
        },
        { cause: error },
      );
    }
  }

  /** Whether a call is one that waits. */
  concerns(name: string, args: readonly Argument[]): boolean {
    // A claim that ends nothing has nothing to lose.
    return (
      WAITING_CALLS.has(name) && !(name === "end_and_claim" && args[0] === 0)
    );
  }

  /**
   * @throws EngineError `transport`: carried out, but there are too few copies of it, or it is not known how many; or what
   * the driver throws
   */
  async call(
    key: string,
    name: string,
    args: readonly Argument[],
  ): Promise<readonly Reply[]> {
    for (let redirections = 0; ; redirections++) {
      const node = this.#nodeOf(key);
      try {
        if (node === undefined)
          throw new Error("CLUSTERDOWN no master is known for the slot");
        return await new Promise((resolve, reject) => {
          this.#enqueue(node, { key, name, args, resolve, reject });
        });
      } catch (error) {
        const isElsewhere =
          this.#client.isCluster && ELSEWHERE.test(messageOf(error));
        if (!isElsewhere || redirections === REDIRECTIONS_MAX) throw error;
      }
      if (redirections > 0) await pause(REDIRECTION_MS);
      await this.#refresh();
    }
  }

  disconnect(): void {
    this.#client.disconnect();
  }

  #enqueue(node: Redis, call: WaitingCall): void {
    let line = this.#lines.get(node);
    if (line === undefined) {
      line = { calls: [], isUnderWay: false };
      this.#lines.set(node, line);
    }
    line.calls.push(call);
    if (line.isUnderWay) return;
    line.isUnderWay = true;
    setImmediate(() => void this.#work(node, line));
  }

  async #work(node: Redis, line: Line): Promise<void> {
    while (line.calls.length > 0)
      await this.#carryOut(node, line.calls.splice(0));
    line.isUnderWay = false;
  }

  /** One write to the socket, and so one connection, whatever becomes of it. */
  async #carryOut(node: Redis, calls: readonly WaitingCall[]): Promise<void> {
    const { replicas, timeoutMs, fsync } = this.#wanted;
    const pipeline = node.pipeline();
    for (const { key, name, args } of calls)
      pipeline.callBuffer("FCALL", [
        `${this.#version}_${name}`,
        1,
        key,
        ...args,
      ]);
    // A call that only recognises what an earlier one wrote writes nothing, and so would wait for nothing.
    pipeline.call("FCALL", `${this.#version}_touch`, 1, calls[0]!.key);
    if (fsync) pipeline.call("WAITAOF", 1, replicas, timeoutMs);
    else pipeline.call("WAIT", replicas, timeoutMs);
    let outcomes: readonly (readonly [error: Error | null, reply: unknown])[];
    try {
      outcomes = (await pipeline.exec()) ?? [];
    } catch (error) {
      for (const { reject } of calls) reject(error);
      return;
    }
    const shortage = this.#shortageIn(outcomes.slice(calls.length));
    for (const [index, { resolve, reject }] of calls.entries()) {
      const [error, reply] = outcomes[index] ?? [new Error("no answer")];
      const answer = reply as readonly Reply[];
      if (error !== null) reject(error);
      // Who is refused is told why; there is nothing to have copies of.
      else if (shortage !== undefined && answer[0] === 0) reject(shortage);
      else resolve(answer);
    }
  }

  /** What is missing, after the touch and the wait. */
  #shortageIn(
    outcomes: readonly (readonly [error: Error | null, reply: unknown])[],
  ): EngineError | undefined {
    const { replicas, timeoutMs, fsync } = this.#wanted;
    const failed = outcomes.find(([error]) => error !== null)?.[0];
    if (failed !== undefined && failed !== null)
      return shortage(
        `the call was carried out, but how many replicas have it is not known: ${failed.message}. Call again`,
        failed,
      );
    const reply = outcomes[1]?.[1];
    const [local, copies] = (fsync ? reply : [1, reply]) as [number, number];
    if (local >= 1 && copies >= replicas) return undefined;
    const missing =
      local < 1
        ? "the server's own disk does not have it yet"
        : `only ${copies} of ${replicas} replicas have it${fsync ? " on disk" : ""}`;
    return shortage(
      `the call was carried out, but after ${timeoutMs} ms ${missing}. Call again to wait for more`,
    );
  }

  /** @returns nothing where no master is known */
  #nodeOf(key: string): Redis | undefined {
    if (!this.#client.isCluster) return this.#client as Redis;
    const cluster = this.#client as Cluster;
    const address = cluster.slots[slotOf(key)]?.[0];
    return cluster
      .nodes("master")
      .find(({ options }) => `${options.host}:${options.port}` === address);
  }

  async #refresh(): Promise<void> {
    // Who fails to hear of the nodes goes on with those that he knows.
    await new Promise<void>((resolve) =>
      (this.#client as Cluster).refreshSlotsCache(() => resolve()),
    );
  }
}

const SLOTS = 16_384;

/** By what stands in braces, as every key of ours has it. */
function slotOf(key: string): number {
  return crc16(Buffer.from(key.replace(/^[^{]*\{([^}]*)\}.*$/s, "$1"))) % SLOTS;
}

function shortage(message: string, cause?: Error): EngineError {
  return new EngineError(
    "transport",
    { backend: "valkey", backendKind: "cluster", message },
    { cause },
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
