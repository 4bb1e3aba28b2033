/** Frames and streams in the words that the cases of streams use. */
import {
  encodeHandle,
  type AppendedFrame,
  type EngineBackend,
  type Frame,
  type Handle,
  type HandlePayload,
  type ReadStreamInput,
  type StreamFrames,
  type StreamMode,
} from "@flowfabric/core";

import { bytes, payloadOf, textOf, type Taken } from "./builders.js";

export const PATCH = {
  kind: "durableSummary",
  patchKind: "jsonMergePatch",
} as const satisfies StreamMode;

export const LIVE = {
  kind: "bestEffortLive",
  ttlMs: 10_000,
} as const satisfies StreamMode;

export function frame(text: string, more: Partial<Frame> = {}): Frame {
  return { bytes: bytes(text), ...more };
}

export function patch(document: unknown): Frame {
  return frame(JSON.stringify(document), { mode: PATCH });
}

/** `count` frames, numbered from `from`. */
export function frames(
  count: number,
  mode: StreamMode = { kind: "durable" },
  from = 0,
): Frame[] {
  return Array.from({ length: count }, (_one, index) =>
    frame(`${from + index}`, { mode }),
  );
}

export function append(
  backend: EngineBackend,
  { handle }: { readonly handle: Handle },
  text: string,
  more: Partial<Frame> = {},
): Promise<AppendedFrame> {
  return backend.appendFrame({ handle, frame: frame(text, more) });
}

/** Any number, in calls of a bearable size. */
export async function appendAll(
  backend: EngineBackend,
  { handle }: { readonly handle: Handle },
  all: readonly Frame[],
): Promise<AppendedFrame[]> {
  const appended: AppendedFrame[] = [];
  for (let at = 0; at < all.length; at += 500)
    appended.push(
      ...(await backend.appendFrames({
        handle,
        frames: all.slice(at, at + 500),
      })),
    );
  return appended;
}

/** A page of the attempt's stream, the first one unless said otherwise. */
export function read(
  backend: EngineBackend,
  { executionId, attemptIndex }: Pick<Taken, "executionId" | "attemptIndex">,
  more: Partial<ReadStreamInput> = {},
): Promise<StreamFrames> {
  return backend.readStream({
    executionId,
    attemptIndex,
    countLimit: 10_000,
    ...more,
  });
}

export function textsOf(page: StreamFrames): (string | undefined)[] {
  return page.frames.map(({ payload }) => textOf(payload));
}

export function idsOf(page: StreamFrames): string[] {
  return page.frames.map(({ id }) => id);
}

/** Whether `b` stands behind `a`. */
export function isLater(a: string, b: string): boolean {
  const [aMs, aN] = a.split("-").map(Number) as [number, number];
  const [bMs, bN] = b.split("-").map(Number) as [number, number];
  return aMs < bMs || (aMs === bMs && aN < bN);
}

/** The handle with a field of what it carries changed, as a holder would have it that is none. */
export function forged(
  backend: EngineBackend,
  claimed: Taken,
  change: Partial<HandlePayload>,
): { readonly handle: Handle } {
  return {
    handle: encodeHandle(backend.backendLabel(), claimed.handle.kind, {
      ...payloadOf(backend, claimed),
      ...change,
    }),
  };
}

export async function summaryOf(
  backend: EngineBackend,
  { executionId, attemptIndex }: Pick<Taken, "executionId" | "attemptIndex">,
): Promise<
  { readonly document: unknown; readonly version: number } | undefined
> {
  const summary = await backend.readSummary({ executionId, attemptIndex });
  return summary === undefined
    ? undefined
    : {
        document: JSON.parse(textOf(summary.documentJson)!) as unknown,
        version: summary.version,
      };
}
