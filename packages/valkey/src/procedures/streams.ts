/** The stream of one attempt: sending frames, and what a read of them answers. */
import {
  cutPage,
  formatFrameId,
  frameModeOf,
  FRAME_MODES,
  isEngineError,
  NEW_STREAM,
  repeatedOutcomes,
  toStreamFrames,
  type AppendedFrame,
  type Args,
  type AttemptEnd,
  type FrameId,
  type FrameRange,
  type HandlePayload,
  type ParsedFrame,
  type StoredFrame,
  type StreamCloseReason,
  type StreamMeta,
  type StreamPage,
} from "@flowfabric/core";

import {
  listOf,
  optionalNumber,
  textOf,
  type Argument,
  type Reply,
} from "../connection.js";
import { refOf } from "../rows.js";
import type { Store } from "../store.js";
import { fenceValues } from "./fences.js";
import { documentHash, tryPatch } from "./summaries.js";

/** @throws EngineError as {@link StreamOperations.appendFrames} */
export function appendFrames(
  store: Store,
  own: HandlePayload,
  frames: readonly ParsedFrame[],
): Promise<AppendedFrame[]> {
  const stream = `${own.executionId} ${own.attemptIndex}`;
  const patches = frames
    .filter((frame) => frameModeOf(frame) === "summary")
    .map(({ bytes }) => bytes);
  return store.summaries.inOrder(stream, patches.length > 0, () =>
    patches.length === 0
      ? append(store, own, frames)
      : appendPatched(store, own, frames, { stream, patches }),
  );
}

async function append(
  store: Store,
  own: HandlePayload,
  frames: readonly ParsedFrame[],
): Promise<AppendedFrame[]> {
  const [, ...mark] = await callAppend(store, own, frames, "", "");
  return toOutcomes(mark, frames);
}

async function appendPatched(
  store: Store,
  own: HandlePayload,
  frames: readonly ParsedFrame[],
  summary: { readonly stream: string; readonly patches: readonly Uint8Array[] },
): Promise<AppendedFrame[]> {
  const { stream, patches } = summary;
  let stored = store.summaries.remembered(stream);
  for (;;) {
    const patched = tryPatch(stored, patches);
    // Without a document the server looks what else it would refuse, for that goes first, and tells what it has.
    const [kind, ...answer] = await callAppend(
      store,
      own,
      frames,
      documentHash(stored),
      isEngineError(patched) ? "" : patched,
    );
    if (textOf(kind!) === "appended") {
      if (!isEngineError(patched)) store.summaries.remember(stream, patched);
      return toOutcomes(answer, frames);
    }
    const current = (answer[0] as Buffer | null) ?? undefined;
    if (isEngineError(patched) && isSame(current, stored)) throw patched;
    stored = current;
  }
}

function isSame(a: Buffer | undefined, b: Buffer | undefined): boolean {
  return a === undefined || b === undefined ? a === b : a.equals(b);
}

/** As append in lua/functions/streams.lua reads it. */
function callAppend(
  { cells }: Store,
  own: HandlePayload,
  frames: readonly ParsedFrame[],
  baseHash: string,
  document: Argument,
): Promise<readonly Reply[]> {
  return cells
    .of(own.executionId)
    .call(
      "append",
      refOf(own.executionId),
      ...fenceValues(own),
      frames[0]!.seq ?? "",
      frames.at(-1)!.seq ?? "",
      baseHash,
      document,
      ...frames.flatMap(frameValues),
    );
}

function frameValues(frame: ParsedFrame): Argument[] {
  const { mode, frameType, correlationId, seq, bytes } = frame;
  const header = [frameType, correlationId ?? null, seq ?? null];
  return [
    FRAME_MODES.indexOf(frameModeOf(frame)),
    JSON.stringify(
      seq !== undefined
        ? header
        : header.slice(0, correlationId === undefined ? 1 : 2),
    ),
    mode.kind === "bestEffortLive"
      ? `${mode.ttlMs} ${mode.maxlenFloor} ${mode.maxlenCeiling} ${mode.emaAlpha}`
      : "",
    Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
  ];
}

/** All ids and counts of a call follow from those of its last frame. */
function toOutcomes(
  [ms, n, frameCount, summaryVersion]: readonly Reply[],
  frames: readonly ParsedFrame[],
): AppendedFrame[] {
  const mark = {
    seq: 0,
    lastId: { ms, n } as FrameId,
    frameCount: frameCount as number,
    summaryVersion: summaryVersion as number,
  };
  return repeatedOutcomes(mark, frames);
}

export interface PageRead extends StreamPage {
  /** As {@link standingOf} has it. */
  readonly standing: string;
}

/** Frames and close marker of one moment; an execution that is not there has neither. */
export async function readPage(
  { cells }: Store,
  args: Args<"readStream"> | Args<"tailStream">,
  range: FrameRange,
): Promise<PageRead> {
  const answer = await cells
    .of(args.executionId)
    .call(
      "read_stream",
      refOf(args.executionId),
      args.namespace ?? "",
      args.attemptIndex,
      range.after.ms,
      range.after.n,
      formatFrameId(range.to),
      range.visibility === "all" ? 1 : 0,
      args.countLimit,
    );
  const [events, closedAtMs, closedReason, lapsesIn, ...written] = answer;
  const end =
    closedAtMs === undefined || closedAtMs === null
      ? undefined
      : ({
          closedAtMs,
          closedReason: textOf(closedReason!) as StreamCloseReason,
        } as AttemptEnd);
  const { frames, truncated } = cutPage(
    toStoredFrames(listOf(written[11] ?? [])),
    args.countLimit,
  );
  return {
    page: toStreamFrames(range, toMeta(written), end, frames, truncated),
    standing: standingOf(events ?? -1, written[0] ?? 0, written[1] ?? 0),
    lapsesInMs: optionalNumber(lapsesIn),
  };
}

/** As much of it as pages show; nothing where nobody has written. */
function toMeta(written: readonly Reply[]): StreamMeta | undefined {
  if (written.length === 0) return undefined;
  const idAt = (place: number) =>
    ({ ms: written[place], n: written[place + 1] }) as FrameId;
  return {
    ...NEW_STREAM,
    lastId: idAt(0),
    trimmedThrough: {
      durable: idAt(2),
      summary: idAt(5),
      best_effort: idAt(8),
    },
    retained: {
      durable: written[4] as number,
      summary: written[7] as number,
      best_effort: written[10] as number,
    },
  };
}

/** As streams.read in lua/lib/streams.lua has them: id, mode, version or time to live, header, payload. */
function toStoredFrames(values: readonly Reply[]): StoredFrame[] {
  const frames: StoredFrame[] = [];
  for (let at = 0; at < values.length; at += 5) {
    const [ms, n] = textOf(values[at]!).split("-").map(Number);
    const mode = FRAME_MODES[values[at + 1] as number]!;
    const extra = optionalNumber(values[at + 2]);
    const [frameType, correlationId, seq] = JSON.parse(
      textOf(values[at + 3]!),
    ) as [string, (string | null)?, (number | null)?];
    frames.push({
      id: { ms: ms!, n: n! },
      mode,
      frameType,
      payload: values[at + 4] as Buffer,
      correlationId: correlationId ?? undefined,
      seq: seq ?? undefined,
      summaryVersion: mode === "summary" ? extra : undefined,
      ttlMs: mode === "best_effort" ? extra : undefined,
    });
  }
  return frames;
}

/** Where it is another than before, a tail may have news: the number of events, and the last frame's id in two. */
export function standingOf(events: Reply, ms: Reply, n: Reply): string {
  return `${events as number} ${ms as number} ${n as number}`;
}
