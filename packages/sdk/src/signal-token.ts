/**
 * What is handed out to whoever shall signal: one text, fit for a URL, that names the waitpoint, its execution and the
 * credential. Whoever takes it in a webhook needs to know nothing else.
 */
import { inspect } from "node:util";

import {
  engineError,
  formatExecutionId,
  parseExecutionId,
  parseToken,
  WaitpointId,
  WaitpointToken,
  type ExecutionId,
} from "@flowfabric/core";

/** A waitpoint and the right to signal it. */
export interface SignalTarget {
  readonly executionId: string;
  readonly waitpointId: string;
  readonly waitpointToken: WaitpointToken | string;
}

/** Easily found by those who look for secrets in logs; the digit is the version of what follows. */
const PREFIX = "ffsig1_";
const PARTITION_BYTES = 2;
const UUID_BYTES = 16;
const DIGEST_BYTES = 32;
const FIXED_BYTES = PARTITION_BYTES + 2 * UUID_BYTES + DIGEST_BYTES;

/**
 * The portable form of a waitpoint's token. As the raw one, it shows itself to nobody by accident: printed, inspected or
 * put into JSON it is redacted, and only {@link SignalToken.reveal} gives the text.
 *
 * @example
 * const { signalToken } = await task.createPendingWaitpoint({ waitpointKey: "paid", expiresInMs: 86_400_000 });
 * await mail.send(`https://shop.example/paid/${signalToken.reveal()}`);
 */
export class SignalToken implements SignalTarget {
  readonly executionId: ExecutionId;
  readonly waitpointId: WaitpointId;
  readonly waitpointToken: WaitpointToken;
  readonly #text: string;

  private constructor(
    executionId: ExecutionId,
    waitpointId: WaitpointId,
    token: string,
    text: string,
  ) {
    this.executionId = executionId;
    this.waitpointId = waitpointId;
    this.waitpointToken = new WaitpointToken(token);
    this.#text = text;
  }

  /** Of a waitpoint whose raw token is known. @throws EngineError `missing_token`, `invalid_token` */
  static of({
    executionId,
    waitpointId,
    waitpointToken,
  }: SignalTarget): SignalToken {
    const token =
      typeof waitpointToken === "string"
        ? waitpointToken
        : waitpointToken.reveal();
    if (token === "") throw engineError("missing_token", {});
    const parsed = parseToken(token);
    const execution = parseExecutionId(executionId);
    const waitpoint = WaitpointId.safeParse(waitpointId);
    if (parsed === undefined || execution === undefined || !waitpoint.success)
      throw engineError("invalid_token", {});
    const { partition, uuid } = execution;
    const bytes = Buffer.concat([
      Buffer.from([partition >> 8, partition & 0xff]),
      uuidBytes(uuid),
      uuidBytes(waitpoint.data),
      Buffer.from(parsed.digest, "hex"),
      Buffer.from(parsed.kid, "latin1"),
    ]);
    return new SignalToken(
      executionId as ExecutionId,
      waitpoint.data,
      token,
      PREFIX + bytes.toString("base64url"),
    );
  }

  /**
   * From the text that {@link reveal} gave. Says nothing about whether the store will accept it.
   * @throws EngineError `missing_token` where there is none, `invalid_token` where it is not one
   */
  static parse(text: string): SignalToken {
    if (text === "") throw engineError("missing_token", {});
    const bytes = Buffer.from(text.slice(PREFIX.length), "base64url");
    if (!text.startsWith(PREFIX) || bytes.length <= FIXED_BYTES)
      throw engineError("invalid_token", {});
    let at = PARTITION_BYTES;
    const take = (length: number) => bytes.subarray(at, (at += length));
    const executionId = formatExecutionId(
      bytes.readUInt16BE(0),
      uuidText(take(UUID_BYTES)),
    );
    const waitpointId = uuidText(take(UUID_BYTES));
    const digest = take(DIGEST_BYTES).toString("hex");
    const waitpointToken = `${bytes.toString("latin1", at)}:${digest}`;
    const token = SignalToken.of({ executionId, waitpointId, waitpointToken });
    // The decoder passes over what is no base64; only one text is this token.
    if (token.reveal() !== text) throw engineError("invalid_token", {});
    return token;
  }

  /** The text itself, to be handed to whoever shall signal. Letters, digits, `_` and `-` only. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return this.waitpointToken.toString();
  }
  toJSON(): string {
    return this.waitpointToken.toString();
  }
  [inspect.custom](): string {
    return this.waitpointToken.toString();
  }
}

function uuidBytes(uuid: string): Buffer {
  return Buffer.from(uuid.replaceAll("-", ""), "hex");
}

function uuidText(bytes: Buffer): string {
  return bytes
    .toString("hex")
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
