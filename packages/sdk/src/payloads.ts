/**
 * From a caller's value to stored bytes and back. Stored is the value as given, before the validator's
 * transforms: the writer checks it before any I/O, the reader decodes it and applies the transforms.
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { invalidInput } from "@flowfabric/core";

import type { Codec } from "./codec.js";
import { describeError } from "./logger.js";
import { PayloadDecodeError, type PayloadIssue } from "./errors.js";

type Place = PayloadDecodeError["detail"]["at"];

/** The validator's output. @throws PayloadDecodeError with the first five complaints */
export async function validate(
  schema: StandardSchemaV1,
  value: unknown,
  at: Place,
): Promise<unknown> {
  try {
    return accepted(await runValidator(schema, value, at), at);
  } catch (error) {
    throw error instanceof PayloadDecodeError ? error : threw(error, at);
  }
}

/** As {@link validate}, for callers that must answer at once. @throws EngineError `invalid_input` on a promise */
export function validateSync(
  schema: StandardSchemaV1,
  value: unknown,
  at: Place,
): unknown {
  const result = runValidator(schema, value, at);
  if ("then" in result) {
    // Nobody awaits it: a rejection must not surface as unhandled.
    result.catch(() => {});
    throw invalidInput(
      "input",
      "asynchronous_validator: inside a transaction the validator must answer at once",
    );
  }
  return accepted(result, at);
}

/** `undefined` is no payload. @throws PayloadDecodeError when the codec cannot write the value */
export function encode(
  codec: Codec,
  value: unknown,
  at: Place,
): Uint8Array | undefined {
  if (value === undefined) return undefined;
  try {
    return codec.encode(value);
  } catch (error) {
    throw new PayloadDecodeError(
      at,
      [{ message: `not writable as ${codec.encoding}` }],
      error,
    );
  }
}

/** No payload is `undefined`. @throws PayloadDecodeError when the bytes are not the codec's */
export function decode(
  codec: Codec,
  bytes: Uint8Array | undefined,
  at: Place,
): unknown {
  if (bytes === undefined) return undefined;
  try {
    return codec.decode(bytes);
  } catch (error) {
    // The decoder's own message may quote the payload; it stays in the cause.
    throw new PayloadDecodeError(
      at,
      [{ message: `not readable as ${codec.encoding}` }],
      error,
    );
  }
}

/** Input payloads know no difference between empty and absent: both are `undefined`. */
export function decodeInput(codec: Codec, payload: Uint8Array): unknown {
  return decode(codec, payload.length === 0 ? undefined : payload, "handler");
}

function runValidator(
  schema: StandardSchemaV1,
  value: unknown,
  at: Place,
): ReturnType<StandardSchemaV1["~standard"]["validate"]> {
  try {
    return schema["~standard"].validate(value);
  } catch (error) {
    throw threw(error, at);
  }
}

function threw(error: unknown, at: Place): PayloadDecodeError {
  return new PayloadDecodeError(
    at,
    [{ message: `the validator threw: ${describeError(error)}` }],
    error,
  );
}

function accepted(
  result: StandardSchemaV1.Result<unknown>,
  at: Place,
): unknown {
  if (result.issues === undefined) return result.value;
  throw new PayloadDecodeError(at, result.issues.map(toIssue));
}

function toIssue(issue: StandardSchemaV1.Issue): PayloadIssue {
  if (issue.path === undefined || issue.path.length === 0)
    return { message: issue.message };
  const path = issue.path
    .map((segment) =>
      String(typeof segment === "object" ? segment.key : segment),
    )
    .join(".");
  return { message: issue.message, path };
}
