/**
 * Reading what an execution puts out, from one attempt to the next until its end. Each event has a cursor; whoever comes
 * back with the last one goes on behind it, without a gap and without a repeat.
 */
import {
  closableIterable,
  engineError,
  isEngineError,
  parseFrameCursor,
  type EngineBackend,
  type ExecutionInfo,
  type FrameMode,
  type StreamCloseReason,
  type StreamFrame,
  type StreamFrames,
  type TailVisibility,
} from "@flowfabric/core";

import type { CompletionFeed } from "./completion-feed.js";
import { ConfigError, findEngineError, isRetryable } from "./errors.js";
import {
  abortWithFirstOf,
  jittered,
  sleep,
  underAnyOf,
  type CallOptions,
} from "./waiting.js";

export interface StreamQuery {
  readonly executionId: string;
  /** The cursor of an event: goes on behind it. */
  readonly after?: string | undefined;
  /**
   * Where to begin without a cursor. `start`: before the first attempt's first retained frame. `end`: with what comes from
   * now on. Default `start`.
   */
  readonly from?: "start" | "end" | undefined;
  /** Default `all`. */
  readonly visibility?: TailVisibility | undefined;
  /** Default: the client's. */
  readonly namespace?: string | undefined;
}

/** One frame, as it was written. */
export class StreamedFrame {
  readonly kind = "frame";
  readonly cursor: string;
  readonly attemptIndex: number;
  /** `<ms>-<n>`, rising within the attempt. */
  readonly id: string;
  readonly payload: Uint8Array;
  readonly frameType: string;
  readonly mode: FrameMode;
  readonly metadata: string | undefined;
  /** False where the payload is no valid UTF-8. */
  readonly isText: boolean;
  /** When it was appended, by the store's clock. */
  readonly atMs: number;

  constructor(attemptIndex: number, { id, fields, payload }: StreamFrame) {
    this.cursor = cursorOf(attemptIndex, id);
    this.attemptIndex = attemptIndex;
    this.id = id;
    this.payload = payload;
    this.frameType = fields["frame_type"] as string;
    this.mode = fields["mode"] as FrameMode;
    this.metadata = fields["correlation_id"] as string | undefined;
    this.isText = fields["encoding"] === "utf8";
    this.atMs = Number(fields["ts"]);
  }

  /** Decoded as UTF-8; of binary payloads what can be read of them. */
  get text(): string {
    return Buffer.from(this.payload).toString("utf8");
  }

  json(): unknown {
    return JSON.parse(this.text) as unknown;
  }
}

export type StreamEvent =
  | StreamedFrame
  /** Frames that came here are not kept any more; what follows is. */
  | {
      readonly kind: "gap";
      readonly attemptIndex: number;
      readonly cursor: string;
    }
  /** The boundary of an attempt: it puts out no more. Another one may follow. */
  | {
      readonly kind: "end";
      readonly attemptIndex: number;
      readonly cursor: string;
      /** Of a worker that was lost `lease_expired` or `lease_revoked`, and `reclaimed` to whoever reads it after the take-over. */
      readonly reason: StreamCloseReason;
      readonly atMs: number;
    };

const PAGE_FRAMES = 1_000;
const TAIL_MS = 30_000;
/** While no attempt runs, whether one will is looked up this often, in case a wake-up was lost. */
const REREAD_MS = 1_000;
const PAUSE_MS = 100;
const PAUSE_MS_MAX = 5_000;

/**
 * @throws ConfigError `stream`, field `after`
 * @throws EngineError at the first step: `execution_not_found`
 */
export function readStreams(
  backend: EngineBackend,
  feed: CompletionFeed,
  query: StreamQuery & { readonly namespace: string },
  options: CallOptions & { readonly disposed: AbortSignal },
): AsyncIterable<StreamEvent> {
  const position = query.after === undefined ? undefined : parse(query.after);
  return closableIterable(async function* (closed) {
    const either = new AbortController();
    const unlink = abortWithFirstOf([closed, options.disposed], either);
    const reader = new StreamReader(backend, feed, query, either.signal);
    try {
      yield* reader.events(position);
    } finally {
      unlink();
    }
    if (!closed.aborted) options.disposed.throwIfAborted();
  }, options.signal);
}

interface Position {
  readonly attemptIndex: number;
  /** A frame's id; `0-0` is before all of the attempt. */
  readonly after: string;
}

function cursorOf(attemptIndex: number, id: string): string {
  return `${attemptIndex}:${id}`;
}

function parse(cursor: string): Position {
  const [, attempt, id] = /^(\d{1,9}):(\d+-\d+)$/.exec(cursor) ?? [];
  if (id === undefined || parseFrameCursor(id) === undefined)
    throw new ConfigError(
      "stream",
      `'${cursor}' is no cursor of a stream; pass that of an event`,
      "after",
    );
  return { attemptIndex: Number(attempt), after: id };
}

class StreamReader {
  readonly #backend: EngineBackend;
  readonly #feed: CompletionFeed;
  readonly #query: StreamQuery & { readonly namespace: string };
  readonly #signal: AbortSignal;
  #attemptIndex = 0;
  #after = "0-0";
  /** Whether the attempt that is read is known to exist. */
  #begun = false;
  /** Aborts the wait for an attempt that may never come. */
  #bell = new AbortController();
  #seen = false;

  constructor(
    backend: EngineBackend,
    feed: CompletionFeed,
    query: StreamQuery & { readonly namespace: string },
    signal: AbortSignal,
  ) {
    this.#backend = backend;
    this.#feed = feed;
    this.#query = query;
    this.#signal = signal;
  }

  async *events(position?: Position): AsyncGenerator<StreamEvent, void> {
    const { executionId } = this.#query;
    const joined = this.#feed.join(executionId, () => this.#bell.abort());
    try {
      await this.#begin(position);
      while (!this.#signal.aborted) {
        if (!this.#begun && (await this.#isOver())) return;
        const page = await this.#patiently(() => this.#tail());
        if (page === undefined) return;
        yield* this.#eventsOf(page);
      }
    } finally {
      joined.leave();
    }
  }

  async #begin(position: Position | undefined): Promise<void> {
    if (position !== undefined) {
      this.#attemptIndex = position.attemptIndex;
      this.#after = position.after;
    } else if (this.#query.from === "end") {
      this.#attemptIndex = (await this.#info())?.currentAttemptIndex ?? 0;
      const page = await this.#patiently(() =>
        this.#backend.readStream({ ...this.#ref, from: "end", countLimit: 1 }),
      );
      this.#after = page?.nextCursor ?? this.#after;
    }
  }

  *#eventsOf(page: StreamFrames): Generator<StreamEvent, void> {
    const { closedAtMs: atMs, closedReason: reason } = page;
    const attemptIndex = this.#attemptIndex;
    if (page.gap)
      yield {
        kind: "gap",
        attemptIndex,
        cursor: cursorOf(attemptIndex, this.#after),
      };
    this.#after = page.nextCursor;
    if (page.frames.length > 0) this.#begun = true;
    for (const frame of page.frames) {
      yield new StreamedFrame(attemptIndex, frame);
      if (this.#signal.aborted) return;
    }
    if (atMs === undefined || reason === undefined || page.truncated) return;
    this.#attemptIndex += 1;
    this.#after = "0-0";
    this.#begun = false;
    const cursor = cursorOf(this.#attemptIndex, this.#after);
    yield { kind: "end", attemptIndex, cursor, reason, atMs };
  }

  get #ref() {
    const { executionId, namespace, visibility = "all" } = this.#query;
    const attemptIndex = this.#attemptIndex;
    return { executionId, namespace, attemptIndex, visibility };
  }

  async #tail(): Promise<StreamFrames> {
    const tail = {
      ...this.#ref,
      after: this.#after,
      countLimit: PAGE_FRAMES,
    };
    if (this.#begun)
      return await this.#backend.tailStream({
        ...tail,
        blockMs: TAIL_MS,
        signal: this.#signal,
      });
    return await underAnyOf([this.#signal, this.#bell.signal], (signal) =>
      this.#backend.tailStream({ ...tail, blockMs: REREAD_MS, signal }),
    );
  }

  /** Whether the attempt that is waited for can be waited for in vain: the execution has ended without it. */
  async #isOver(): Promise<boolean> {
    // A ring from here on may tell of an end that this look does not see yet.
    this.#bell = new AbortController();
    this.#feed.reopen();
    const info = await this.#info();
    if (info === undefined) return true;
    this.#begun =
      info.startedAtMs !== undefined &&
      info.currentAttemptIndex >= this.#attemptIndex;
    return !this.#begun && info.stateVector.lifecyclePhase === "terminal";
  }

  /** Nothing where retention has removed it since. @throws EngineError `execution_not_found` the first time */
  async #info(): Promise<ExecutionInfo | undefined> {
    const { executionId, namespace } = this.#query;
    const info = await this.#patiently(() =>
      this.#backend.readExecutionInfo({ executionId, namespace }),
    );
    if (info === undefined && !this.#seen && !this.#signal.aborted)
      throw engineError("execution_not_found", {
        entity: "execution",
        executionId,
      });
    this.#seen = true;
    return info;
  }

  /** Asks again while the store cannot be reached, or has too much to do; nothing once the reader is closed. */
  async #patiently<T>(call: () => Promise<T>): Promise<T | undefined> {
    for (let pauseMs = PAUSE_MS; !this.#signal.aborted; pauseMs *= 2) {
      try {
        return await call();
      } catch (error) {
        if (this.#signal.aborted) return undefined;
        if (!isRetryable(error)) throw error;
        const engine = findEngineError(error);
        const asked = isEngineError(engine, "resource_exhausted")
          ? engine.detail.retryAfterMs
          : undefined;
        await sleep(
          asked ?? jittered(Math.min(pauseMs, PAUSE_MS_MAX)),
          this.#signal,
        );
      }
    }
    return undefined;
  }
}
