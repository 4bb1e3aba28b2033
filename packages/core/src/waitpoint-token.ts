/**
 * The bearer credential of a waitpoint. Whoever holds it may signal, so it shows itself to nobody by accident: printed,
 * inspected or put into JSON it is redacted, and only {@link WaitpointToken.reveal} gives the text. Source:
 * specification 05 §3.1.
 */
import { inspect } from "node:util";

import { z } from "zod";

import { KID_MAX_CHARACTERS } from "./limits.js";

export interface ParsedToken {
  readonly kid: string;
  readonly digest: string;
}

const DIGEST = /^[0-9a-f]{64}$/;

/** Printable ASCII without what separates the parts of tokens and messages. */
export function isKid(text: string): boolean {
  return (
    text.length >= 1 &&
    text.length <= KID_MAX_CHARACTERS &&
    /^[\x20-\x7e]+$/.test(text) &&
    !/[:|]/.test(text)
  );
}

/** The parts of a token, or nothing where it cannot be one. */
export function parseToken(text: string): ParsedToken | undefined {
  const colon = text.indexOf(":");
  if (colon < 0) return undefined;
  const kid = text.slice(0, colon);
  const digest = text.slice(colon + 1);
  return isKid(kid) && DIGEST.test(digest) ? { kid, digest } : undefined;
}

/** What logs and errors may show of a token. */
export function redactToken(text: string): string {
  const token = parseToken(text);
  return token === undefined
    ? "<REDACTED:malformed>"
    : `${token.kid}:<REDACTED:len=${token.digest.length}>`;
}

export class WaitpointToken {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** The token itself, to be handed to whoever shall signal. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return redactToken(this.#text);
  }
  toJSON(): string {
    return redactToken(this.#text);
  }
  [inspect.custom](): string {
    return redactToken(this.#text);
  }
}

/** Taken as its text or as it was given out, also by another copy of this package. Absent: empty. */
export const WaitpointTokenText = z
  .union([
    z.string(),
    z.custom<WaitpointToken>(
      (value) =>
        typeof (value as { reveal?: unknown } | null)?.reveal === "function",
    ),
  ])
  .default("")
  .transform((token) => (typeof token === "string" ? token : token.reveal()));
