/**
 * Merging patches, which the server's JSON cannot do exactly. A call that brings patches brings the document that they make,
 * and what it was merged into; where something else is stored by now, the server says what, and it is merged again. As only
 * the holder of a lease appends, that is seldom: what this process has stored, it remembers.
 */
import { createHash } from "node:crypto";

import {
  isEngineError,
  patchDocument,
  type EngineError,
} from "@flowfabric/core";

/** Of documents remembered, together. */
const REMEMBERED_BYTES_MAX = 8 * 1_048_576;

export class Summaries {
  /** The latest last. */
  readonly #documents = new Map<string, Buffer>();
  #bytes = 0;
  /** By stream: when all calls before have been answered. */
  readonly #lines = new Map<string, Promise<unknown>>();

  /** What this process last knew to be stored; a hint. */
  remembered(stream: string): Buffer | undefined {
    return this.#documents.get(stream);
  }

  remember(stream: string, document: Buffer): void {
    this.#forget(stream);
    this.#documents.set(stream, document);
    this.#bytes += document.length;
    for (const oldest of this.#documents.keys()) {
      if (this.#bytes <= REMEMBERED_BYTES_MAX) break;
      this.#forget(oldest);
    }
  }

  /**
   * Calls with patches go one after the other, for each needs what the one before has made; so do those that come behind
   * them, or they would overtake.
   */
  inOrder<Answer>(
    stream: string,
    hasPatches: boolean,
    send: () => Promise<Answer>,
  ): Promise<Answer> {
    const before = this.#lines.get(stream);
    if (before === undefined && !hasPatches) return send();
    const answer = before === undefined ? send() : before.then(send);
    const leave = () => {
      if (this.#lines.get(stream) === answered) this.#lines.delete(stream);
    };
    const answered: Promise<void> = answer.then(leave, leave);
    this.#lines.set(stream, answered);
    return answer;
  }

  #forget(stream: string): void {
    this.#bytes -= this.#documents.get(stream)?.length ?? 0;
    this.#documents.delete(stream);
  }
}

/** As the append function knows a document. */
export function documentHash(document: Buffer | undefined): string {
  return document === undefined
    ? ""
    : createHash("sha1").update(document).digest("hex");
}

/** The document that patches make of a stored one, or why they cannot. */
export function tryPatch(
  stored: Buffer | undefined,
  patches: readonly Uint8Array[],
): Buffer | EngineError {
  try {
    return Buffer.from(patchDocument(stored?.toString(), patches));
  } catch (error) {
    if (isEngineError(error)) return error;
    throw error;
  }
}
