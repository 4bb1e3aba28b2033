/** Values as they are stored: uuids as bytes, JSON as text, and what is absent. */
import { v7 } from "uuid";

import { engineError } from "../errors.js";

export function parseJson<T>(text: string, field: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw engineError(
      "corruption",
      { context: "execution", field, message: "stored JSON cannot be read" },
      cause,
    );
  }
}

export function uuidToBytes(uuid: string): Buffer {
  return Buffer.from(uuid.replaceAll("-", ""), "hex");
}

/** So many fresh UUIDv7, one behind the other; each is more than the one before. */
export function newUuidBytes(count: number): Buffer {
  const bytes = Buffer.allocUnsafe(count * UUID_BYTES);
  for (let at = 0; at < bytes.length; at += UUID_BYTES)
    v7(undefined, bytes, at);
  return bytes;
}

const UUID_BYTES = 16;

export function bytesToUuid(bytes: Uint8Array): string {
  const hex = Buffer.from(
    bytes.buffer,
    bytes.byteOffset,
    bytes.byteLength,
  ).toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** `{}` or one field: absent stays absent. */
export function optional<K extends string, V>(
  key: K,
  value: V | null | undefined,
): Partial<Record<K, V>> {
  return value === null || value === undefined
    ? {}
    : ({ [key]: value } as Record<K, V>);
}
