/** Values to bytes and back. Backends carry the bytes exactly and never look into them. */

/** Replaceable per client, worker and definition; both ends must use the same. */
export interface Codec {
  /** A short name for people, such as `json`. */
  readonly encoding: string;
  /** @throws when the value cannot be written; nothing is sent then */
  encode(value: unknown): Uint8Array;
  /** @throws when the bytes are not what {@link Codec.encode} writes */
  decode(bytes: Uint8Array): unknown;
}

const toBytes = new TextEncoder();
const toText = new TextDecoder("utf-8", { fatal: true });

/** The default: UTF-8 JSON. Refuses what JSON would drop silently at the top level: functions and symbols. */
export const jsonCodec: Codec = {
  encoding: "json",
  encode(value) {
    const text = JSON.stringify(value) as string | undefined;
    if (text === undefined)
      throw new TypeError(`a ${typeof value} cannot be written as JSON`);
    return toBytes.encode(text);
  },
  decode(bytes) {
    return JSON.parse(toText.decode(bytes));
  },
};
