/**
 * Where transactions end in what a client and Postgres say to each other, so that a proxy can cut a connection exactly
 * there. Every request that is answered by "ready for query" counts: a COMMIT, or a statement outside of a transaction.
 */
import type { Tap } from "./tcp-proxy.js";

/**
 * `request lost`: the server never sees the end, and rolls back. `reply lost`: it carried the end out, and the client
 * does not hear of it. To the client both look the same.
 */
export type Fate = "spared" | "request lost" | "reply lost";

const QUERY = 0x51;
const SYNC = 0x53;
const READY_FOR_QUERY = 0x5a;
/** Of a message: one byte for its type, four for its length, which counts itself. */
const TYPE_BYTES = 1;
const LENGTH_BYTES = 4;

/** A tap that asks for the fate of each end, in the order in which the client sends them. */
export function tapTransactionEnds(fateOf: () => Fate): Tap {
  /** Of what is still to be answered. The startup packet is answered like a query, and ends nothing. */
  const awaited: Fate[] = ["spared"];
  let inTransaction = false;
  const requests = new Messages({ startup: true });
  const replies = new Messages({ startup: false });

  const endsTransaction = (type: number, body: Buffer): boolean => {
    if (type !== QUERY) return !inTransaction;
    const text = body.toString("utf8");
    if (/^\s*BEGIN\b/i.test(text)) {
      inTransaction = !/\bCOMMIT\b/i.test(text);
      return !inTransaction;
    }
    const ends = !inTransaction || /^\s*COMMIT\b/i.test(text);
    if (/^\s*(COMMIT|ROLLBACK)\b/i.test(text)) inTransaction = false;
    return ends;
  };

  return {
    fromClient(bytes) {
      for (const { type, body } of requests.read(bytes)) {
        if (type !== QUERY && type !== SYNC) continue;
        const fate = endsTransaction(type, body) ? fateOf() : "spared";
        if (fate === "request lost") return "cut";
        awaited.push(fate);
      }
      return "pass";
    },
    fromServer(bytes) {
      for (const { type } of replies.read(bytes))
        if (type === READY_FOR_QUERY && awaited.shift() === "reply lost")
          return "cut";
      return "pass";
    },
  };
}

interface Message {
  readonly type: number;
  readonly body: Buffer;
}

/** Bytes come as the network likes; messages come out whole. */
class Messages {
  #rest: Buffer = Buffer.alloc(0);
  /** The first message of a client has no type. */
  #startup: boolean;

  constructor({ startup }: { startup: boolean }) {
    this.#startup = startup;
  }

  read(bytes: Buffer): Message[] {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    const messages: Message[] = [];
    for (;;) {
      const typeBytes = this.#startup ? 0 : TYPE_BYTES;
      if (this.#rest.length < typeBytes + LENGTH_BYTES) return messages;
      const end = typeBytes + this.#rest.readInt32BE(typeBytes);
      if (this.#rest.length < end) return messages;
      const body = this.#rest.subarray(typeBytes + LENGTH_BYTES, end);
      if (!this.#startup) messages.push({ type: this.#rest[0]!, body });
      this.#startup = false;
      this.#rest = this.#rest.subarray(end);
    }
  }
}
