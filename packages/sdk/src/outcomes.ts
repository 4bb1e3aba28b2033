/** How an attempt's outcome reaches the engine. A worker coalesces them; a bare connection sends one by one. */
import {
  failureClassOf,
  type EngineBackend,
  type OutcomeItem,
  type OutcomeResult,
} from "@flowfabric/core";

/** Outcomes that the engine accepted; a refusal is thrown. */
export type AcceptedOutcome = Exclude<OutcomeResult, { kind: "rejected" }>;

export interface OutcomeSender {
  send(item: OutcomeItem): Promise<AcceptedOutcome>;
}

export class DirectOutcomes implements OutcomeSender {
  readonly #backend: EngineBackend;
  constructor(backend: EngineBackend) {
    this.#backend = backend;
  }

  async send(item: OutcomeItem): Promise<AcceptedOutcome> {
    const { handle, payload, failure } = item;
    if (failure !== undefined)
      return this.#backend.fail({ handle, ...failure });
    await this.#backend.complete({ handle, payload });
    return { kind: "completed" };
  }
}

/** The engine keeps this much of a reason; a longer one is cut rather than refused. */
const REASON_MAX = 65_536;

/** A failure as the engine takes it: the category goes verbatim, its class decides about retries. */
export function failureOf(
  reason: string,
  category: string | undefined,
): NonNullable<OutcomeItem["failure"]> {
  return {
    reason: {
      message: reason.slice(0, REASON_MAX),
      ...(category === undefined
        ? {}
        : { detail: new TextEncoder().encode(category) }),
    },
    classification: failureClassOf(category ?? "transient"),
  };
}
