/** Signals, from both sides: sending one to a waitpoint, and reading those that a resumed attempt goes on with. */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import {
  newSignalId,
  type EngineBackend,
  type ResumeSignal,
  type SignalEffect,
  type SignalId,
} from "@flowfabric/core";

import type { Codec } from "./codec.js";
import { decode, encode, validate } from "./payloads.js";
import { SignalToken, type SignalTarget } from "./signal-token.js";
import { repeatLostReplies, type CallOptions } from "./waiting.js";

export interface Signal {
  /** What conditions ask for; 1 to 256 bytes, not beginning with two underscores. */
  readonly name: string;
  /** Bytes as they are, anything else through the codec; at most what the store takes, 1 MiB by default. */
  readonly payload?: unknown;
  readonly category?: string | undefined;
  /** With {@link Signal.sourceIdentity} what `distinctSources` counts: a kind of sender, and which of them. */
  readonly sourceType?: string | undefined;
  readonly sourceIdentity?: string | undefined;
  readonly correlationId?: string | undefined;
  /** Of this waitpoint: for a day, a second signal with the same key is a `duplicate` of the first. */
  readonly idempotencyKey?: string | undefined;
}

export type SignalResult =
  /** The condition came true by it: a worker goes on. */
  | { readonly kind: "triggeredResume"; readonly signalId: SignalId }
  | {
      readonly kind: "accepted";
      readonly signalId: SignalId;
      /** Absent where the reply was lost and only its arrival is certain. */
      readonly effect?: Exclude<SignalEffect, "resume_condition_satisfied">;
    }
  | { readonly kind: "duplicate"; readonly existingSignalId: SignalId };

/** One signal is delivered once, however often its reply is lost. */
export async function sendSignal(
  backend: EngineBackend,
  codec: Codec,
  target: SignalTarget | string,
  { name, payload, category, ...rest }: Signal,
  options: CallOptions,
): Promise<SignalResult> {
  const { executionId, waitpointId, waitpointToken } =
    typeof target === "string" ? SignalToken.parse(target) : target;
  const isBytes = payload instanceof Uint8Array;
  const signalId = newSignalId();
  let tries = 0;
  const answer = await repeatLostReplies((attempt) => {
    tries = attempt;
    return backend.deliverSignal({
      ...rest,
      executionId,
      waitpointId,
      waitpointToken,
      signalId,
      signalName: name,
      signalCategory: category,
      payload: isBytes ? payload : encode(codec, payload, "signal"),
      payloadEncoding: isBytes ? "bytes" : codec.encoding,
    });
  }, options);
  if (answer.kind === "duplicate") {
    const { existingSignalId } = answer;
    // Its own first try, whose reply was lost.
    if (tries > 1 && existingSignalId === signalId)
      return { kind: "accepted", signalId };
    return { kind: "duplicate", existingSignalId };
  }
  const { effect } = answer;
  return effect === "resume_condition_satisfied"
    ? { kind: "triggeredResume", signalId }
    : { kind: "accepted", signalId, effect };
}

/** A signal that helped to resume. */
export class ReceivedSignal implements ResumeSignal {
  readonly signalId: SignalId;
  readonly signalName: string;
  readonly signalCategory: string;
  readonly sourceType: string;
  readonly sourceIdentity: string;
  readonly correlationId: string;
  /** By the store's clock. */
  readonly acceptedAtMs: number;
  /** Byte-exact. */
  declare readonly payload?: Uint8Array;
  readonly #codec: Codec;

  constructor(signal: ResumeSignal, codec: Codec) {
    this.signalId = signal.signalId;
    this.signalName = signal.signalName;
    this.signalCategory = signal.signalCategory;
    this.sourceType = signal.sourceType;
    this.sourceIdentity = signal.sourceIdentity;
    this.correlationId = signal.correlationId;
    this.acceptedAtMs = signal.acceptedAtMs;
    if (signal.payload !== undefined) this.payload = signal.payload;
    this.#codec = codec;
  }

  /**
   * The payload, decoded and validated: the output side of the validator. Without a payload, `undefined` is validated.
   * @throws PayloadDecodeError `at: "signal"`
   */
  async decode<S extends StandardSchemaV1>(
    schema: S,
  ): Promise<StandardSchemaV1.InferOutput<S>> {
    return validate(
      schema,
      decode(this.#codec, this.payload, "signal"),
      "signal",
    );
  }
}
