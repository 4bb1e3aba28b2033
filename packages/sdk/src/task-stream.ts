/**
 * What a task puts out while it runs. Frames that are written in the same tick leave together, and while a call is on
 * its way the next one gathers: one trip for many frames, in the order they were written.
 *
 * Each frame has a number of its own, so that a call which is repeated behind a lost reply adds nothing. Numbers begin
 * with the lease's epoch: who goes on with a parked attempt, in whatever process, counts above all before.
 */
import {
  BATCH_ITEMS_MAX,
  BATCH_MAX_BYTES,
  Frame,
  parseInput,
  parsePatch,
  type AppendedFrame,
  type EngineBackend,
  type FrameKind,
  type StreamMode,
} from "@flowfabric/core";

import { ConfigError, findEngineError } from "./errors.js";
import { describeError, type Logger } from "./logger.js";
import type { Ownership } from "./ownership.js";
import { repeatLostReplies } from "./waiting.js";

export interface WriteOptions {
  /** Free text, at most 128 bytes: `delta`, `log`, … Default: the kind. */
  readonly frameType?: string | undefined;
  /** Default `event`. */
  readonly kind?: FrameKind | undefined;
  /** Kept with the frame, at most 256 bytes. */
  readonly metadata?: string | undefined;
  /** Default durable. */
  readonly mode?: StreamMode | undefined;
}

/** Above this `ready` waits: what is written faster than the store takes it stays in memory. */
const BUFFER_MAX_BYTES = 1_048_576;
const BUFFER_MAX_FRAMES = 1_000;
/** Numbers under one lease; epochs then fit up to eight million. */
const FRAMES_PER_EPOCH = 2 ** 30;

interface Pending {
  readonly frame: Frame;
  readonly resolve: (appended: AppendedFrame) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Output of one attempt. Calls answer once the frame is stored. They need not be awaited one by one: what fails then is
 * logged, and {@link TaskStream.flush} tells. Ending the task waits for what is on its way.
 */
export class TaskStream {
  readonly #backend: EngineBackend;
  readonly #ownership: Ownership;
  readonly #logger: Logger;
  #lastSeq: number;
  #pending: Pending[] = [];
  #bufferedFrames = 0;
  #bufferedBytes = 0;
  /** Resolves when nothing is pending any more; absent while that is so. */
  #sending: Promise<void> | undefined;
  #roomWaiters: (() => void)[] = [];
  #failure: { readonly error: unknown } | undefined;

  constructor(backend: EngineBackend, ownership: Ownership, logger: Logger) {
    this.#backend = backend;
    this.#ownership = ownership;
    this.#logger = logger;
    this.#lastSeq = ownership.claimed.leaseEpoch * FRAMES_PER_EPOCH;
  }

  /**
   * Appends a frame: text as UTF-8, bytes exactly; at most 65 536 bytes.
   * @throws EngineError `retention_limit_exceeded`, `invalid_input`: the frame was not sent; `stream_closed`,
   * `stale_owner_cannot_append`: the attempt is over, or not this task's any more
   */
  write(
    payload: string | Uint8Array,
    options: WriteOptions = {},
  ): Promise<AppendedFrame> {
    const bytes =
      typeof payload === "string" ? Buffer.from(payload, "utf8") : payload;
    return this.#append(bytes, options);
  }

  /** Appends a value as JSON. @throws ConfigError `stream`, where it has no JSON form */
  json(value: unknown, options: WriteOptions = {}): Promise<AppendedFrame> {
    const text = JSON.stringify(value) as string | undefined;
    if (text === undefined)
      return Promise.reject(
        new ConfigError("stream", "this value has no JSON form", "value"),
      );
    return this.write(text, options);
  }

  /**
   * Merges a JSON Merge Patch into the attempt's summary, and appends it as a frame. `null` deletes a key; the text
   * `__ff_null__` stores null.
   */
  patch(
    document: object,
    options: Omit<WriteOptions, "mode"> = {},
  ): Promise<AppendedFrame> {
    return this.json(document, {
      ...options,
      mode: { kind: "durableSummary", patchKind: "jsonMergePatch" },
    });
  }

  /** Resolves while the buffer has room: await it before each write where writing may be faster than the store. */
  get ready(): Promise<void> {
    if (this.#hasRoom) return Promise.resolve();
    return new Promise((resolve) => this.#roomWaiters.push(resolve));
  }

  /** Waits until everything written so far is stored. @throws the first failure since the last flush */
  async flush(): Promise<void> {
    await this.settled();
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure.error;
  }

  /** As {@link flush}, whatever became of the frames. */
  async settled(): Promise<void> {
    while (this.#sending !== undefined) await this.#sending;
  }

  /** A sink for `pipeTo` and its kin: takes as fast as the store does, and fails with the first frame that does. */
  writable(options: WriteOptions = {}): WritableStream<string | Uint8Array> {
    let failure: { readonly error: unknown } | undefined;
    const throwFailure = () => {
      if (failure !== undefined) throw failure.error;
    };
    return new WritableStream({
      write: async (chunk) => {
        this.write(chunk, options).catch((error: unknown) => {
          failure ??= { error };
        });
        await this.ready;
        throwFailure();
      },
      close: async () => {
        await this.settled();
        throwFailure();
      },
    });
  }

  get #hasRoom(): boolean {
    return (
      this.#bufferedBytes < BUFFER_MAX_BYTES &&
      this.#bufferedFrames < BUFFER_MAX_FRAMES
    );
  }

  #append(bytes: Uint8Array, options: WriteOptions): Promise<AppendedFrame> {
    const appended = new Promise<AppendedFrame>((resolve, reject) => {
      const frame = frameOf(bytes, options, this.#lastSeq + 1);
      this.#lastSeq += 1;
      this.#pending.push({ frame, resolve, reject });
      this.#bufferedFrames += 1;
      this.#bufferedBytes += bytes.length;
      this.#sending ??= this.#send();
    });
    // Not everyone awaits each write; who does is told as well.
    appended.catch((error: unknown) => {
      this.#failure ??= { error };
    });
    return appended;
  }

  async #send(): Promise<void> {
    // The end of this turn of the event loop: whatever else is written until then comes along.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#pending.length > 0) await this.#sendBatch(this.#takeBatch());
    this.#sending = undefined;
  }

  /** As much as one call takes, by number and by bytes. */
  #takeBatch(): Pending[] {
    let bytes = 0;
    const tooMany = this.#pending.findIndex(({ frame }, index) => {
      bytes += frame.bytes.length;
      return index === BATCH_ITEMS_MAX || bytes > BATCH_MAX_BYTES;
    });
    return this.#pending.splice(0, tooMany === -1 ? Infinity : tooMany);
  }

  /** Never rejects: each write is told its own outcome. */
  async #sendBatch(batch: readonly Pending[]): Promise<void> {
    try {
      const appended = await this.#call(batch);
      batch.forEach(({ resolve }, index) => resolve(appended[index]!));
    } catch (error) {
      // The store takes all or none; alone, only the frame at fault is refused.
      if (batch.length > 1 && findEngineError(error)?.kind === "Validation") {
        for (const one of batch) await this.#sendBatch([one]);
        return;
      }
      const { executionId, attemptIndex } = this.#ownership.claimed;
      this.#logger.warn("frames were not appended", {
        executionId,
        attemptIndex,
        frames: batch.length,
        error: describeError(error),
      });
      for (const { reject } of batch) reject(error);
    }
    this.#giveRoom(batch);
  }

  #call(batch: readonly Pending[]): Promise<AppendedFrame[]> {
    const { handle } = this.#ownership.claimed;
    const frames = batch.map(({ frame }) => frame);
    return this.#ownership.call("stream", () =>
      repeatLostReplies(() => this.#backend.appendFrames({ handle, frames })),
    );
  }

  #giveRoom(batch: readonly Pending[]): void {
    this.#bufferedFrames -= batch.length;
    this.#bufferedBytes -= batch.reduce(
      (sum, { frame }) => sum + frame.bytes.length,
      0,
    );
    if (!this.#hasRoom) return;
    const waiters = this.#roomWaiters;
    this.#roomWaiters = [];
    for (const resolve of waiters) resolve();
  }
}

/** Checked here, so that a frame which cannot be accepted takes no other with it. @throws EngineError */
function frameOf(
  bytes: Uint8Array,
  { metadata, ...options }: WriteOptions,
  seq: number,
): Frame {
  const frame: Frame = {
    ...options,
    bytes,
    seq,
    ...(metadata === undefined ? {} : { correlationId: metadata }),
  };
  const { mode } = parseInput(Frame, frame);
  if (mode.kind === "durableSummary") parsePatch(bytes);
  return frame;
}
