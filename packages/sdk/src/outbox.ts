/**
 * Outcomes that end in the same tick leave together, with the claim for the permits they free: one trip instead
 * of two for each. Every task still gets its own answer, and one refusal touches no other.
 *
 * Where nothing is on its way, many of them leave as two calls: while the store works on one half, the handlers of
 * the other run. Each half comes back on its own, so that the two stay apart.
 */
import {
  BATCH_ITEMS_MAX,
  BATCH_MAX_BYTES,
  engineError,
  EngineError,
  ERROR_TABLE,
  type ClaimManyInput,
  type ClaimManyResult,
  type EngineBackend,
  type ErrorCode,
  type OutcomeItem,
  type OutcomeResult,
} from "@flowfabric/core";

import { findEngineError } from "./errors.js";
import {
  DirectOutcomes,
  type AcceptedOutcome,
  type OutcomeSender,
} from "./outcomes.js";
import type { ClaimRequest } from "./session.js";
import { repeatLostReplies } from "./waiting.js";

/** From so many on, the cost of a second call is less than what store and handlers wait for each other. */
const HALVED_FROM = 8;

/** The claim that may go with a batch. */
export interface ClaimSource {
  /** A claim for the permits that `count` outcomes free, or nothing where another claim is under way. */
  begin(count: number): ClaimRequest | undefined;
  input(request: ClaimRequest): ClaimManyInput;
  /** Before the outcomes settle, so that what came is there when their permits become free. */
  arrived(request: ClaimRequest, answer: ClaimManyResult): void;
  failed(request: ClaimRequest, error: unknown): void;
}

interface Pending {
  readonly item: OutcomeItem;
  readonly bytes: number;
  readonly resolve: (outcome: AcceptedOutcome) => void;
  readonly reject: (error: unknown) => void;
}

export class Outbox implements OutcomeSender {
  readonly #backend: EngineBackend;
  readonly #direct: DirectOutcomes;
  readonly #claims: ClaimSource;
  readonly #together: boolean;
  readonly #concurrent: boolean;
  #pending: Pending[] = [];
  #inFlight = 0;

  constructor(backend: EngineBackend, claims: ClaimSource) {
    this.#backend = backend;
    const { supports } = backend.capabilities();
    this.#together = supports.completeAndClaim;
    this.#concurrent = supports.concurrentCalls;
    this.#direct = new DirectOutcomes(backend);
    this.#claims = claims;
  }

  send(item: OutcomeItem): Promise<AcceptedOutcome> {
    if (!this.#together) return this.#direct.send(item);
    return new Promise((resolve, reject) => {
      // The end of this turn of the event loop: whatever else ends until then comes along.
      if (this.#pending.length === 0) setImmediate(() => this.#flush());
      const bytes = item.payload?.length ?? 0;
      this.#pending.push({ item, bytes, resolve, reject });
    });
  }

  #flush(): void {
    const pending = this.#pending;
    this.#pending = [];
    for (const part of this.#inHalves(pending))
      for (const batch of inBatches(part)) void this.#dispatch(batch);
  }

  #inHalves(pending: Pending[]): Pending[][] {
    const { length } = pending;
    if (!this.#concurrent || this.#inFlight > 0 || length < HALVED_FROM)
      return [pending];
    const middle = Math.ceil(length / 2);
    return [pending.slice(0, middle), pending.slice(middle)];
  }

  async #dispatch(batch: readonly Pending[]): Promise<void> {
    const claim = this.#claims.begin(batch.length);
    const items = batch.map(({ item }) => item);
    this.#inFlight++;
    try {
      const answer = await repeatLostReplies((attempt) => {
        if (claim !== undefined && attempt > 1) claim.repeat = true;
        return this.#backend.completeAndClaim({
          items,
          claim: claim === undefined ? undefined : this.#claims.input(claim),
        });
      });
      if (claim !== undefined) this.#claims.arrived(claim, answer);
      batch.forEach(({ resolve, reject }, index) => {
        const outcome = answer.results[index]!;
        if (outcome.kind !== "rejected") resolve(outcome);
        else reject(refusalOf(outcome));
      });
    } catch (error) {
      if (claim !== undefined) this.#claims.failed(claim, error);
      // Arguments are checked for the batch as a whole: alone, only the item at fault is refused.
      const together =
        batch.length > 1 && findEngineError(error)?.kind === "Validation";
      for (const { item, resolve, reject } of batch)
        if (together) this.#direct.send(item).then(resolve, reject);
        else reject(error);
    } finally {
      this.#inFlight--;
    }
  }
}

/** As many as one call takes, by number and by bytes. */
function inBatches(pending: readonly Pending[]): Pending[][] {
  const batches: Pending[][] = [];
  let bytes = Infinity;
  for (const entry of pending) {
    const last = batches.at(-1);
    bytes += entry.bytes;
    if (
      last === undefined ||
      last.length === BATCH_ITEMS_MAX ||
      bytes > BATCH_MAX_BYTES
    ) {
      batches.push([entry]);
      bytes = entry.bytes;
    } else {
      last.push(entry);
    }
  }
  return batches;
}

function refusalOf(
  refused: Extract<OutcomeResult, { kind: "rejected" }>,
): EngineError {
  const { code, detail } = refused;
  if (Object.hasOwn(ERROR_TABLE, code))
    return new EngineError(code as ErrorCode, detail);
  // A newer store may know more codes than this library.
  return engineError("transport", {
    backend: "",
    backendKind: "protocol",
    message: `unknown code '${code}'`,
  });
}
