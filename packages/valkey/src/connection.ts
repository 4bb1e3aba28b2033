/**
 * Calling functions in the server. The library is loaded where it is missing, so that a flushed, restarted or replaced
 * server is no fault that a caller would see.
 */
import { engineError, EngineError, type ErrorCode } from "@flowfabric/core";
import { Cluster, Redis } from "ioredis";

import { connected } from "./connecting.js";
import { Copies, type CopiesWanted } from "./copies.js";
import {
  isConnectionLost,
  isLibraryMissing,
  StaleNumbers,
  translateError,
} from "./errors.js";
import type { Library } from "./library.js";
import type { ParsedOptions } from "./options.js";

/** What a function answers, as the wire has it. */
export type Reply = Buffer | number | null | readonly Reply[];
export type Argument = string | number | Buffer;

export class Connection {
  readonly isCluster: boolean;
  readonly #client: Redis | Cluster;
  readonly #library: Library;
  readonly #isOurs: boolean;
  /** Where submissions and ends wait for replicas. */
  #copies: Copies | undefined;
  #loading: Promise<Loaded> | undefined;
  #underWay = 0;
  #drained: (() => void)[] = [];
  #closed = false;

  constructor(
    client: Redis | Cluster,
    library: Library,
    { isOurs }: { readonly isOurs: boolean },
  ) {
    this.#client = client;
    this.#library = library;
    this.#isOurs = isOurs;
    // Not by its class: a caller's client may come from another copy of the driver.
    this.isCluster = client.isCluster;
    // The driver tells the calls that are lost; without a listener it would also write to the console.
    client.on("error", ignore);
  }

  get version(): string {
    return this.#library.version;
  }

  /** A connection for listening, to the same server or any of the cluster. It connects when it is told to, and once. */
  listener(): Redis {
    const nodes = isCluster(this.#client)
      ? this.#client.nodes()
      : [this.#client];
    const node = nodes[Math.floor(Math.random() * nodes.length)];
    if (node === undefined) throw new Error("no node of the cluster is known");
    const listener = node.duplicate({
      lazyConnect: true,
      enableOfflineQueue: true,
      retryStrategy: () => null,
    });
    listener.on("error", ignore);
    return listener;
  }

  /** From now on submissions and ends answer when so many have them. @throws EngineError see {@link Copies.open} */
  async waitForCopies(
    wanted: CopiesWanted,
    answerTimeoutMs: number,
  ): Promise<void> {
    const duplicate = isCluster(this.#client)
      ? this.#client.duplicate([], { lazyConnect: true })
      : this.#client.duplicate({ lazyConnect: true });
    this.#copies = new Copies(duplicate, wanted, this.#library);
    await this.#copies.open(answerTimeoutMs);
  }

  async ping(): Promise<void> {
    await this.during(() => this.#client.ping());
  }

  /**
   * Calls a function with the key of its cell.
   * @throws EngineError what the function refused with; or what the driver throws
   * @throws StaleNumbers
   */
  async call(
    key: string,
    name: string,
    args: readonly Argument[],
  ): Promise<readonly Reply[]> {
    const [status, ...answer] = await this.during(() =>
      this.#callLoaded(key, name, args),
    );
    if (status === 0) return answer;
    if (status === STALE) throw new StaleNumbers();
    throw new EngineError(
      textOf(answer[0]!) as ErrorCode,
      JSON.parse(textOf(answer[1]!)) as never,
    );
  }

  /** Loads the library into every master that lacks it. @returns whether any did */
  async load(): Promise<boolean> {
    const { hasLoaded, failures } = await this.#loadEach();
    if (failures.length > 0) throw failures[0];
    return hasLoaded;
  }

  /**
   * The same where some masters may be gone: when they are back, they get it with a call.
   * @throws what a master failed with, where none has it
   */
  async loadWhereReachable(): Promise<void> {
    const { masters, failures } = await this.#loadEach();
    if (failures.length > 0 && failures.length === masters) throw failures[0];
  }

  /** What is to be a call counts as one before it is sent: closing waits for it. @throws EngineError `unavailable` */
  async during<Answer>(body: () => Promise<Answer>): Promise<Answer> {
    if (this.#closed) throw engineError("unavailable", { op: "shutdown" });
    this.#underWay++;
    try {
      return await body();
    } finally {
      this.#underWay--;
      if (this.#underWay === 0)
        for (const resolve of this.#drained.splice(0)) resolve();
    }
  }

  /** Resolves when no call is under way. */
  async drained(): Promise<void> {
    if (this.#underWay === 0) return;
    await new Promise<void>((resolve) => this.#drained.push(resolve));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    await this.drained();
    this.#closed = true;
    this.#copies?.disconnect();
    this.#client.off("error", ignore);
    if (!this.#isOurs) return;
    this.#client.on("error", ignore);
    this.#client.disconnect();
  }

  async #callLoaded(
    key: string,
    name: string,
    args: readonly Argument[],
  ): Promise<readonly Reply[]> {
    const copies = this.#copies;
    const send = () =>
      copies?.concerns(name, args) === true
        ? copies.call(key, name, args)
        : (this.#client.callBuffer("FCALL", [
            `${this.#library.version}_${name}`,
            1,
            key,
            ...args,
          ]) as Promise<readonly Reply[]>);
    for (let tries = 1; ; tries++) {
      try {
        return await send();
      } catch (error) {
        // Its node may be gone for good: another has its slots by now, or will have them soon.
        if (isCluster(this.#client) && isConnectionLost(error))
          this.#client.refreshSlotsCache();
        if (!isLibraryMissing(error) || tries === SENDS_MAX) throw error;
      }
      this.#loading ??= this.#loadEach().finally(
        () => (this.#loading = undefined),
      );
      const { masters, failures } = await this.#loading;
      // Others may have failed for good; whether the one that was called has, its answer tells.
      if (failures.length > 0 && (tries > 1 || failures.length === masters))
        throw failures[0];
    }
  }

  async #loadEach(): Promise<Loaded> {
    const masters = isCluster(this.#client)
      ? this.#client.nodes("master")
      : [this.#client];
    const loads = await Promise.allSettled(
      masters.map((master) => loadInto(master, this.#library)),
    );
    return {
      masters: masters.length,
      hasLoaded: loads.some(
        (load) => load.status === "fulfilled" && load.value,
      ),
      failures: loads.flatMap((load) =>
        load.status === "rejected" ? [load.reason as unknown] : [],
      ),
    };
  }
}

interface Loaded {
  readonly masters: number;
  /** Into any. */
  readonly hasLoaded: boolean;
  /** Of masters that do not have it. */
  readonly failures: readonly unknown[];
}

/** As lua/lib/answer.lua has it. */
const STALE = 2;

/** A library that vanishes behind each load is somebody else's trouble. */
const SENDS_MAX = 5;

const ignore = () => {};

function isCluster(client: Redis | Cluster): client is Cluster {
  return client.isCluster;
}

/** Between tries to connect: more with each, up to the most. */
const RECONNECT_MS = 50;
const RECONNECT_MS_MAX = 1_000;

async function loadInto(
  master: Redis | Cluster,
  { text, version }: Library,
): Promise<boolean> {
  try {
    await master.call("FUNCTION", "LOAD", text);
    return true;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (/already exists/i.test(message)) return false;
    // A full server does not even look whether it has it.
    if (message.startsWith("OOM") && (await isLoaded(master, version)))
      return false;
    if (/unknown command/i.test(message)) {
      throw new EngineError(
        "unavailable",
        { op: "functions: needs Valkey 7.2, Redis 7.0, or newer" },
        { cause: error },
      );
    }
    throw withoutItsCommand(message);
  }
}

/** The driver's own error would show the whole library to whoever prints it. */
function withoutItsCommand(message: string): Error {
  return new Error(message);
}

/** The driver's types for options and for the parts of options differ in what may be undefined. */
function asGiven(options: object | undefined): object {
  return options ?? {};
}

async function isLoaded(
  master: Redis | Cluster,
  version: string,
): Promise<boolean> {
  const libraries = await master.call(
    "FUNCTION",
    "LIST",
    "LIBRARYNAME",
    version,
  );
  return (libraries as readonly unknown[]).length > 0;
}

/** @throws EngineError `transport` where the server cannot be reached or refuses */
export async function openConnection(
  options: ParsedOptions,
  library: Library,
): Promise<Connection> {
  if (options.client !== undefined)
    return new Connection(options.client, library, { isOurs: false });
  const common = {
    lazyConnect: true,
    connectTimeout: Math.min(options.answerTimeoutMs, 10_000),
    commandTimeout: options.answerTimeoutMs,
    // Silence while an answer is due: the connection is dead, and nobody told.
    socketTimeout: options.answerTimeoutMs,
    // A call that may have been carried out is the caller's to repeat: he says so, and it is recognised. The driver forgets
    // such calls unless it is to fail whatever is open each time that it cannot connect.
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    retryStrategy: (tries: number) =>
      Math.min(tries * RECONNECT_MS, RECONNECT_MS_MAX),
    // It has become a replica. Where its address leads elsewhere by now, the new master is there.
    reconnectOnError: (error: Error) => error.message.startsWith("READONLY"),
    keepAlive: 10_000,
    ...asGiven(options.redisOptions),
  };
  const client =
    options.clusterNodes === undefined
      ? new Redis(options.url!.replace(/^valkey/, "redis"), common)
      : new Cluster([...options.clusterNodes], {
          // Here as well: what a lost connection may have carried out is for the caller to repeat.
          retryDelayOnFailover: 0,
          ...options.clusterOptions,
          lazyConnect: true,
          redisOptions: {
            ...common,
            ...asGiven(options.clusterOptions?.redisOptions),
          },
        });
  client.on("error", ignore);
  try {
    await connected(client, options.answerTimeoutMs);
  } catch (error) {
    client.disconnect();
    throw translateError(error, "open");
  }
  return new Connection(client, library, { isOurs: true });
}

export function textOf(reply: Reply): string {
  return Buffer.isBuffer(reply) ? reply.toString("utf8") : String(reply);
}

/** Absent values travel as nil. */
export function optionalText(reply: Reply | undefined): string | undefined {
  return reply === null || reply === undefined ? undefined : textOf(reply);
}

export function optionalNumber(reply: Reply | undefined): number | undefined {
  return reply === null || reply === undefined
    ? undefined
    : Number(textOf(reply));
}

export function listOf(reply: Reply | undefined): readonly Reply[] {
  return reply as readonly Reply[];
}

/** The same bytes as the driver takes them; they are sent soon. */
export function bytesOf(value: Uint8Array): Buffer {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

/** A value that may be absent, as two arguments: an empty one is a value too. */
export function optionalValues(
  value: Uint8Array | string | undefined,
): Argument[] {
  if (value === undefined) return ["", ""];
  return ["1", typeof value === "string" ? value : bytesOf(value)];
}

/**
 * For functions of the server, which read no half of a surrogate pair: as everywhere a text travels, U+FFFD takes its place.
 */
export function jsonOf(value: unknown): string {
  const text = JSON.stringify(value);
  if (!text.includes("\\ud")) return text;
  return JSON.stringify(value, (_key, field: unknown) =>
    typeof field === "string" ? Buffer.from(field).toString() : field,
  );
}
