/** Webhooks into signals: the token is in the address, the body is the payload. */
import {
  engineError,
  isEngineError,
  PAYLOAD_MAX_BYTES_CEILING,
  type ErrorCode,
} from "@flowfabric/core";

import type { Client } from "./client.js";
import { findEngineError } from "./errors.js";
import { SignalToken } from "./signal-token.js";

export interface SignalBridgeOptions {
  /** Default: the query parameter `name`, else `callback`. */
  readonly signalName?: string | undefined;
  /** Told about the sender; default `webhook`. */
  readonly sourceType?: string | undefined;
}

/** Nobody learns whether it is the token, the waitpoint or the execution that is wrong. */
const NOT_LET_IN: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "missing_token",
  "invalid_token",
  "token_expired",
  "execution_not_found",
  "waitpoint_not_found",
]);
const TOO_LATE: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "waitpoint_closed",
  "target_not_signalable",
]);

/**
 * Makes a handler for `POST …/<token>`: the token is the last part of the path, or that of an `Authorization: Bearer` header,
 * which goes first. The body becomes the payload, byte for byte; a header `Idempotency-Key` the signal's key.
 *
 * Answers 200 where the signal is delivered or was before, 401 for whatever is wrong with the token, 409 where it comes too
 * late, 400 and 413 for what cannot be a signal.
 * @throws what the store fails with, for the server's own error handling
 * @example
 * const bridge = signalBridge(client);
 * server.post("/callback/:token", (request) => bridge(request));
 */
export function signalBridge(
  client: Pick<Client, "signal">,
  { signalName, sourceType = "webhook" }: SignalBridgeOptions = {},
): (request: Request) => Promise<Response> {
  return async (request) => {
    const url = new URL(request.url);
    const text =
      /^Bearer +(.+)$/i.exec(request.headers.get("authorization") ?? "")?.[1] ??
      url.pathname.split("/").at(-1)!;
    try {
      // Nobody's body is read who has nothing that looks like a token.
      const token = SignalToken.parse(text);
      const body = await readBody(request);
      const answer = await client.signal(token, {
        name: signalName ?? url.searchParams.get("name") ?? "callback",
        sourceType,
        ...(body.length === 0 ? {} : { payload: body }),
        idempotencyKey: request.headers.get("idempotency-key") ?? undefined,
      });
      return Response.json({ kind: answer.kind });
    } catch (error) {
      const status = statusOf(error);
      if (status === undefined) throw error;
      const code =
        status === 401 ? "unauthorized" : findEngineError(error)!.code;
      return Response.json({ error: code }, { status });
    }
  };
}

/** At most what any store takes. @throws EngineError `payload_too_large` */
async function readBody({ body }: Request): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    chunks.push(chunk as Uint8Array);
    bytes += (chunk as Uint8Array).length;
    if (bytes > PAYLOAD_MAX_BYTES_CEILING)
      throw engineError("payload_too_large", {
        maxBytes: PAYLOAD_MAX_BYTES_CEILING,
        actualBytes: bytes,
      });
  }
  return Buffer.concat(chunks);
}

function statusOf(error: unknown): number | undefined {
  const engine = findEngineError(error);
  if (engine === undefined) return undefined;
  if (NOT_LET_IN.has(engine.code)) return 401;
  if (TOO_LATE.has(engine.code)) return 409;
  if (isEngineError(engine, "payload_too_large")) return 413;
  return isEngineError(engine, "invalid_input") ? 400 : undefined;
}
