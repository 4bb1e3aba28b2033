/**
 * Payloads of many items as one parameter. A list of bytes would travel as text, two digits to a byte, which the server
 * takes apart letter by letter: more work than all that is then written. The bytes of one parameter travel as they are,
 * and each item says where in them its own are.
 */
export interface Slice {
  /** Counted from 1. Absent where there is no payload; one without bytes is something else. */
  readonly from_byte?: number;
  readonly size?: number;
}

export class Packed {
  readonly #parts: Uint8Array[] = [];
  #size = 0;

  add(payload: Uint8Array | undefined): Slice {
    if (payload === undefined) return {};
    const fromByte = this.#size + 1;
    this.#parts.push(payload);
    this.#size += payload.length;
    return { from_byte: fromByte, size: payload.length };
  }

  bytes(): Uint8Array {
    return this.#parts.length === 1
      ? this.#parts[0]!
      : Buffer.concat(this.#parts, this.#size);
  }
}

/** Only the slice is copied, for what is a parameter was never compressed. NULL where the item has no payload. */
export const unpacked = (item: string) =>
  `substring(?::BYTEA FROM ${item}.from_byte FOR ${item}.size)`;
