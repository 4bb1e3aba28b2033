/**
 * What orders the frames of a stream, and how readers name a place in it. Source: specification 06 §1.1, §6.1.
 */

/** `n` tells apart what one millisecond brought. Both fit a JavaScript number exactly. */
export interface FrameId {
  readonly ms: number;
  readonly n: number;
}

/** Before every frame. */
export const FIRST_FRAME_ID: FrameId = { ms: 0, n: 0 };
/** Behind every frame. */
export const BEYOND_FRAMES: FrameId = {
  ms: Number.MAX_SAFE_INTEGER,
  n: Number.MAX_SAFE_INTEGER,
};

export function formatFrameId({ ms, n }: FrameId): string {
  return `${ms}-${n}`;
}

export function compareFrameIds(a: FrameId, b: FrameId): number {
  return a.ms - b.ms || a.n - b.n;
}

export function later(a: FrameId, b: FrameId): FrameId {
  return compareFrameIds(a, b) < 0 ? b : a;
}

/** Never below the one before, whatever the clock does. */
export function nextFrameId(last: FrameId | undefined, nowMs: number): FrameId {
  return last === undefined || last.ms < nowMs
    ? { ms: nowMs, n: 0 }
    : { ms: last.ms, n: last.n + 1 };
}

export type FrameCursor =
  "start" | "end" | { readonly ms: number; readonly n?: number };

const CONCRETE_CURSOR = /^([0-9]{1,20})(?:-([0-9]{1,20}))?$/;
const U64_MAX = 2n ** 64n - 1n;

/** Nothing where the text is no cursor. */
export function parseFrameCursor(text: string): FrameCursor | undefined {
  if (text === "start" || text === "end") return text;
  const [, msDigits, nDigits] = CONCRETE_CURSOR.exec(text) ?? [];
  const ms = parseU64(msDigits);
  if (ms === undefined) return undefined;
  if (nDigits === undefined) return { ms };
  const n = parseU64(nDigits);
  return n === undefined ? undefined : { ms, n };
}

/** No id is that large: beyond what a number holds exactly, one place is as good as another. */
function parseU64(digits: string | undefined): number | undefined {
  if (digits === undefined || BigInt(digits) > U64_MAX) return undefined;
  return Math.min(Number(digits), Number.MAX_SAFE_INTEGER);
}

/** The first id that the cursor means; a tail begins behind it. */
export function lowerBound(cursor: FrameCursor): FrameId {
  if (cursor === "start") return FIRST_FRAME_ID;
  if (cursor === "end") return BEYOND_FRAMES;
  return { ms: cursor.ms, n: cursor.n ?? 0 };
}

/** The last id that the cursor means. */
export function upperBound(cursor: FrameCursor): FrameId {
  if (cursor === "start") return FIRST_FRAME_ID;
  if (cursor === "end") return BEYOND_FRAMES;
  return { ms: cursor.ms, n: cursor.n ?? BEYOND_FRAMES.n };
}

/** An inclusive lower bound as the exclusive one of the same range. */
export function justBefore({ ms, n }: FrameId): FrameId {
  if (n > 0) return { ms, n: n - 1 };
  return ms > 0 ? { ms: ms - 1, n: BEYOND_FRAMES.n } : FIRST_FRAME_ID;
}
