/**
 * Summary documents: JSON Merge Patch on objects, plus a text that stands for null, which a patch could not store
 * otherwise. Source: specification 06 §3.2.
 *
 * Keys are plain data. Objects built here have no prototype, so that `__proto__` is a key as any other.
 */
import { engineError, invalidInput, type EngineError } from "../errors.js";
import {
  PATCH_DEPTH_MAX,
  PATCH_OBJECT_DEPTH_MAX,
  SUMMARY_MAX_BYTES,
  byteLength,
} from "../limits.js";

type Json = null | boolean | number | string | Json[] | JsonObject;
interface JsonObject {
  [key: string]: Json;
}

/** As a value in a patch, wherever it stands: becomes null in the document. */
export const NULL_SENTINEL = "__ff_null__";

/** A patch that may be merged. @throws EngineError `invalid_input`: no JSON object, or nested too deeply */
export function parsePatch(payload: Uint8Array): JsonObject {
  let patch: unknown;
  try {
    patch = JSON.parse(UTF8.decode(payload));
  } catch (cause) {
    throw refusePatch(
      `patch must be a JSON object, and this is no JSON: ${(cause as Error).message}`,
    );
  }
  if (!isObject(patch)) throw refusePatch("patch must be a JSON object");
  if (isTooDeep(patch, 0, 0))
    throw refusePatch(
      `patch_depth_exceeded: objects may be nested ${PATCH_OBJECT_DEPTH_MAX} levels deep, objects and arrays together ${PATCH_DEPTH_MAX}`,
    );
  return patch;
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function refusePatch(reason: string): EngineError {
  return invalidInput("bytes", reason);
}

/**
 * Applies the patches of one call in their order.
 * @param stored the document so far, as its JSON; absent before the first patch
 * @returns the document's new JSON
 * @throws EngineError
 * - `invalid_input`: one of them is no patch
 * - `retention_limit_exceeded`: the document would become too large
 * - `corruption`: the stored document cannot be read
 */
export function patchDocument(
  stored: string | undefined,
  payloads: readonly Uint8Array[],
): string {
  let document = stored === undefined ? {} : parseDocument(stored);
  for (const payload of payloads)
    document = merge(document, parsePatch(payload));
  const json = JSON.stringify(document);
  if (byteLength(json) > SUMMARY_MAX_BYTES)
    throw engineError("retention_limit_exceeded", {
      maxBytes: SUMMARY_MAX_BYTES,
    });
  return json;
}

/** @throws EngineError `corruption` */
export function parseDocument(stored: string): JsonObject {
  const fail = (message: string, cause?: unknown) =>
    engineError(
      "corruption",
      { context: "summary", field: "document", message },
      cause,
    );
  let document: unknown;
  try {
    document = JSON.parse(stored);
  } catch (cause) {
    throw fail("the stored summary is no JSON", cause);
  }
  if (!isObject(document)) throw fail("the stored summary is no object");
  return document;
}

function merge(target: Json | undefined, patch: JsonObject): JsonObject {
  const merged = Object.create(null) as JsonObject;
  if (isObject(target))
    for (const [key, value] of Object.entries(target)) merged[key] = value;
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else if (isObject(value)) merged[key] = merge(merged[key], value);
    else merged[key] = withNulls(value);
  }
  return merged;
}

/** Replaced wholesale; only the sentinel is looked for. */
function withNulls(value: Json): Json {
  if (value === NULL_SENTINEL) return null;
  if (Array.isArray(value)) return value.map(withNulls);
  if (!isObject(value)) return value;
  const copy = Object.create(null) as JsonObject;
  for (const [key, nested] of Object.entries(value))
    copy[key] = withNulls(nested);
  return copy;
}

/** Levels below the root, of objects alone and of objects and arrays together. */
function isTooDeep(value: Json, objects: number, levels: number): boolean {
  if (objects > PATCH_OBJECT_DEPTH_MAX || levels > PATCH_DEPTH_MAX) return true;
  if (typeof value !== "object" || value === null) return false;
  return Object.values(value).some(
    (nested) =>
      typeof nested === "object" &&
      nested !== null &&
      isTooDeep(nested, objects + (Array.isArray(nested) ? 0 : 1), levels + 1),
  );
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
