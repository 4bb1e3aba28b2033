/**
 * The closed table of engine errors: a code decides its family, its class and the shape of its detail.
 * Codes are promises and equal on every backend; messages are for people and may change.
 * Source: specification 03 §3. A heading per code stands in docs/errors.md.
 */

export type ErrorKind =
  | "NotFound"
  | "Validation"
  | "Contention"
  | "Conflict"
  | "State"
  | "Bug"
  | "Transport"
  | "Unavailable"
  | "ResourceExhausted"
  | "Timeout"
  | "StreamDisconnected";

/** What a caller should do; specification 03 §2. */
export type ErrorClass =
  "terminal" | "retryable" | "cooperative" | "informational" | "bug";

/** How a transport fault came about; specification 03 §7. The first four may be retried. */
export type TransportKind =
  | "transport"
  | "timeout"
  | "cluster"
  | "busy_loading"
  | "protocol"
  | "auth"
  | "script_not_loaded"
  | "other";

/** Why a fenced call was refused: enough for a caller to recognise its own earlier success. */
export interface ExecutionNotActiveDetail {
  readonly terminalOutcome: string;
  readonly leaseEpoch: number;
  readonly lifecyclePhase: string;
  /** Empty when a retry was scheduled. */
  readonly attemptId: string;
}

type None = Record<never, never>;

/** Detail fields per code. Times are epoch milliseconds. */
export interface ErrorDetails {
  execution_not_found: {
    readonly entity: "execution";
    readonly executionId: string;
  };
  waitpoint_not_found: {
    readonly entity: "waitpoint";
    readonly waitpointId: string;
  };

  /** `reason` starts with a stable token where the specification names one. */
  invalid_input: { readonly reason: string; readonly field?: string };
  capability_mismatch: { readonly missing: string };
  invalid_capabilities: { readonly reason: string };
  invalid_policy_json: { readonly reason: string };
  invalid_tag_key: { readonly key: string };
  invalid_blocking_reason: { readonly reason: string };
  invalid_offset: { readonly value: string };
  payload_too_large: {
    readonly maxBytes: number;
    readonly actualBytes: number;
  };
  signal_limit_exceeded: { readonly limit: number };
  waitpoint_limit_exceeded: { readonly limit: number };
  missing_token: None;
  invalid_token: None;
  token_expired: None;
  invalid_secret: None;
  waitpoint_not_token_bound: None;
  invalid_lease_for_suspend: None;
  invalid_waitpoint_for_execution: None;
  invalid_kid: None;
  invalid_secret_hex: None;
  invalid_grace_ms: None;
  retention_limit_exceeded: { readonly maxBytes: number };
  fence_required: None;
  partial_fence_triple: None;
  handle_from_other_backend: {
    readonly expected: string;
    readonly actual: string;
  };
  corruption: {
    readonly context: string;
    readonly field: string;
    readonly message: string;
  };

  use_claim_resumed_execution: None;
  not_a_resumed_execution: None;
  execution_not_leaseable: None;
  lease_conflict: None;
  invalid_claim_grant: None;
  claim_grant_expired: None;
  retry_exhausted: { readonly attempts: number };
  execution_not_active: ExecutionNotActiveDetail;
  execution_not_eligible: None;
  execution_not_in_eligible_set: None;
  concurrency_limit_exceeded: { readonly retryAfterMs?: number };

  active_attempt_exists: None;
  waitpoint_already_exists: None;
  rotation_conflict: { readonly kid: string };

  stale_lease: None;
  lease_expired: None;
  lease_revoked: None;
  grant_already_exists: { readonly expiresAtMs?: number };
  execution_not_terminal: None;
  max_replays_exhausted: { readonly limit: number };
  stream_closed: None;
  stale_owner_cannot_append: None;
  cursor_expired: { readonly earliest: string };
  execution_not_suspended: None;
  already_suspended: None;
  already_satisfied: {
    readonly suspensionId: string;
    readonly waitpointId: string;
    readonly waitpointKey: string;
  };
  target_not_signalable: None;
  waitpoint_closed: None;
  waitpoint_not_pending: None;
  waitpoint_not_open: None;
  pending_waitpoint_expired: None;

  invariant_violation: { readonly what: string };
  transport: {
    readonly backend: string;
    readonly backendKind: TransportKind;
    readonly message: string;
  };
  unavailable: { readonly op: string };
  hmac_secret_not_initialized: { readonly op: "waitpoint_hmac" };
  library_version_mismatch: {
    readonly library: string;
    readonly store: string;
  };
  resource_exhausted: {
    readonly pool: string;
    readonly max: number;
    readonly retryAfterMs?: number;
  };
  timeout: { readonly op: string; readonly elapsedMs: number };
  stream_disconnected: { readonly cursor: string };
}

export type ErrorCode = keyof ErrorDetails;

interface CodeRow {
  readonly kind: ErrorKind;
  readonly errorClass: ErrorClass;
  /** What the caller tried and met, and what to do; detail follows in brackets. */
  readonly says: string;
  /** A renewal loop ends for good on this answer; specification 03 §5. */
  readonly stopsRenewal?: true;
}

/** One row per code. */
export const ERROR_TABLE: { readonly [C in ErrorCode]: CodeRow } = {
  execution_not_found: row(
    "NotFound",
    "terminal",
    "no such execution in this store and namespace; check the id",
    true,
  ),
  waitpoint_not_found: row(
    "NotFound",
    "retryable",
    "the execution has no such waitpoint, or not yet; check the id, or back off and call again",
  ),

  invalid_input: row(
    "Validation",
    "terminal",
    "an argument was refused; nothing was changed, correct it and call again",
  ),
  capability_mismatch: row(
    "Validation",
    "retryable",
    "the worker lacks required capabilities; let another worker take it",
  ),
  invalid_capabilities: row(
    "Validation",
    "terminal",
    "a capability list breaks the token or size rules; correct the list",
  ),
  invalid_policy_json: row(
    "Validation",
    "terminal",
    "the execution policy has the wrong shape; correct the named field",
  ),
  invalid_tag_key: row(
    "Validation",
    "terminal",
    "a tag key matches [a-z][a-z0-9_.-]*, has at most 128 bytes and does not start with ff.; rename it",
  ),
  invalid_blocking_reason: row(
    "Validation",
    "terminal",
    "the block reason is not one of the admission reasons",
  ),
  invalid_offset: row(
    "Validation",
    "terminal",
    "the cursor has not the form that is wanted here; use one that this store gave",
  ),
  payload_too_large: row(
    "Validation",
    "terminal",
    "the payload is larger than this store accepts; store it elsewhere and pass a reference",
  ),
  signal_limit_exceeded: row(
    "Validation",
    "terminal",
    "the execution has accepted as many signals as it may; raise maxSignalsPerExecution for the next one",
  ),
  waitpoint_limit_exceeded: row(
    "Validation",
    "terminal",
    "the execution has as many open waitpoints as it may; close some first",
  ),
  missing_token: row(
    "Validation",
    "terminal",
    "the token of the waitpoint is missing; pass the one that its execution gave out",
  ),
  invalid_token: row(
    "Validation",
    "terminal",
    "the token does not open this waitpoint of this execution; check that all three belong together",
  ),
  token_expired: row(
    "Validation",
    "terminal",
    "the key that signed the token was rotated out; ask the execution's owner for a signal by an operator",
  ),
  invalid_secret: row(
    "Validation",
    "terminal",
    "a stored signing secret cannot be decoded; rotate to a new one",
  ),
  waitpoint_not_token_bound: row(
    "Validation",
    "terminal",
    "the token of the pending waitpoint is void, for its key was rotated out; create another waitpoint",
  ),
  invalid_lease_for_suspend: row(
    "Validation",
    "terminal",
    "the handle is of another attempt than the one that runs; stop this work",
  ),
  invalid_waitpoint_for_execution: row(
    "Validation",
    "terminal",
    "the waitpoint belongs to another attempt of the execution; create a new one",
  ),
  invalid_kid: row(
    "Validation",
    "terminal",
    "a kid has 1 to 64 printable ASCII characters, without colon and pipe",
  ),
  invalid_secret_hex: row(
    "Validation",
    "terminal",
    "a secret is an even number of hex digits: 64 for the first one, 2 to 256 when rotating",
  ),
  invalid_grace_ms: row(
    "Validation",
    "terminal",
    "a grace period is a whole number of milliseconds, 0 or more",
  ),
  retention_limit_exceeded: row(
    "Validation",
    "terminal",
    "a frame, or the summary that a patch would make, is larger than streams keep; split it or store it elsewhere",
  ),
  fence_required: row(
    "Validation",
    "terminal",
    "this call needs the whole lease fence: leaseId, leaseEpoch and attemptId",
  ),
  partial_fence_triple: row(
    "Validation",
    "terminal",
    "the lease fence is incomplete; give leaseId, leaseEpoch and attemptId together",
  ),
  handle_from_other_backend: row(
    "Validation",
    "terminal",
    "the handle was made by another backend; use it with the store it came from",
    true,
  ),
  corruption: row(
    "Validation",
    "terminal",
    "stored or passed data could not be decoded; nothing was changed",
    true,
  ),

  use_claim_resumed_execution: row(
    "Contention",
    "retryable",
    "the attempt was interrupted; claim it with claimResumedExecution",
  ),
  not_a_resumed_execution: row(
    "Contention",
    "retryable",
    "there is no interrupted attempt to resume; claim it with claimExecution",
  ),
  execution_not_leaseable: row(
    "Contention",
    "retryable",
    "the execution changed since the grant; ask for a new grant",
  ),
  lease_conflict: row(
    "Contention",
    "retryable",
    "another worker holds the lease; take other work",
    true,
  ),
  invalid_claim_grant: row(
    "Contention",
    "retryable",
    "no such grant for this worker and kind of claim; ask for a new grant",
  ),
  claim_grant_expired: row(
    "Contention",
    "retryable",
    "the grant ran out before it was used; ask for a new grant",
  ),
  retry_exhausted: row(
    "Contention",
    "retryable",
    "the store stayed busy or in conflict for all tries; back off and call again",
  ),
  execution_not_active: row(
    "Contention",
    "terminal",
    "the execution is not running; the detail shows what became of it",
    true,
  ),
  execution_not_eligible: row(
    "Contention",
    "informational",
    "the execution is not in a state that allows this; skip it",
  ),
  execution_not_in_eligible_set: row(
    "Contention",
    "informational",
    "the execution is not waiting for a claim; skip it",
  ),
  concurrency_limit_exceeded: row(
    "Contention",
    "retryable",
    "another call of this kind is under way in this process; call again when it has ended",
  ),

  active_attempt_exists: row(
    "Conflict",
    "bug",
    "an attempt is running where none may be; report this",
  ),
  waitpoint_already_exists: row(
    "Conflict",
    "informational",
    "the execution has a waitpoint of this id already; ids are not used again",
  ),
  rotation_conflict: row(
    "Conflict",
    "terminal",
    "the kid stands for another secret, or for one that is still in its grace; choose a new kid",
  ),

  stale_lease: row(
    "State",
    "terminal",
    "a newer lease exists; stop this work, nothing was written",
    true,
  ),
  lease_expired: row(
    "State",
    "terminal",
    "the lease ran out; stop this work, another worker takes over",
    true,
  ),
  lease_revoked: row(
    "State",
    "terminal",
    "the lease was revoked; stop this work",
    true,
  ),
  grant_already_exists: row(
    "State",
    "informational",
    "a live grant exists; wait until it is used or runs out",
  ),
  execution_not_terminal: row(
    "State",
    "terminal",
    "only a finished execution can be replayed; wait or cancel it first",
  ),
  max_replays_exhausted: row(
    "State",
    "terminal",
    "the replay limit of this execution is reached",
  ),
  stream_closed: row(
    "State",
    "terminal",
    "the attempt has ended or is not running, and its stream takes no more frames",
  ),
  stale_owner_cannot_append: row(
    "State",
    "terminal",
    "the lease is lost or another's; stop this work, nothing was appended",
    true,
  ),
  cursor_expired: row(
    "State",
    "terminal",
    "events behind this cursor were trimmed; resume from the given earliest cursor or re-read state",
  ),
  execution_not_suspended: row(
    "State",
    "informational",
    "the execution is not suspended, or not any more; nothing has to be resumed",
  ),
  already_suspended: row(
    "State",
    "informational",
    "the execution is suspended already; claim it once it is resumed",
  ),
  already_satisfied: row(
    "State",
    "terminal",
    "signals that came before satisfy the condition; go on with the task, it was not suspended",
  ),
  target_not_signalable: row(
    "State",
    "terminal",
    "the execution has ended, or does not wait on this waitpoint",
  ),
  waitpoint_closed: row(
    "State",
    "informational",
    "the waitpoint takes no more signals; this one came too late",
  ),
  waitpoint_not_pending: row(
    "State",
    "informational",
    "the waitpoint was activated or closed before; create a new one",
  ),
  waitpoint_not_open: row(
    "State",
    "informational",
    "the waitpoint is neither pending nor active",
  ),
  pending_waitpoint_expired: row(
    "State",
    "informational",
    "the waitpoint was not used in its time; create a new one",
  ),

  invariant_violation: row(
    "Bug",
    "bug",
    "a rule of the engine was broken; report this",
  ),
  transport: row(
    "Transport",
    "retryable",
    "the store could not be reached or did not answer as expected",
  ),
  unavailable: row(
    "Unavailable",
    "terminal",
    "this store or process does not offer the operation now",
  ),
  hmac_secret_not_initialized: row(
    "Unavailable",
    "terminal",
    "the store has no key to sign tokens with; install one with seedWaitpointHmacSecret",
  ),
  library_version_mismatch: row(
    "Unavailable",
    "terminal",
    "the store was written by a newer library; upgrade this process",
  ),
  resource_exhausted: row(
    "ResourceExhausted",
    "retryable",
    "a limit of this process is reached; back off and call again",
  ),
  timeout: row(
    "Timeout",
    "retryable",
    "the call did not end in time; it is safe to repeat",
  ),
  stream_disconnected: row(
    "StreamDisconnected",
    "retryable",
    "the feed ended; subscribe again with the given cursor",
  ),
};

function row(
  kind: ErrorKind,
  errorClass: ErrorClass,
  says: string,
  stopsRenewal?: true,
): CodeRow {
  return stopsRenewal
    ? { kind, errorClass, says, stopsRenewal }
    : { kind, errorClass, says };
}

const RETRYABLE_TRANSPORT: ReadonlySet<string> = new Set([
  "transport",
  "timeout",
  "cluster",
  "busy_loading",
]);
const BRAND = "flowfabric.EngineError";

/** Common to every error of FlowFabric, those of the SDK included. */
export class FlowFabricError extends Error {
  readonly kind: string;
  readonly code: string;
  readonly detail: object;
  constructor(init: {
    kind: string;
    code: string;
    detail: object;
    message: string;
    cause?: unknown;
  }) {
    super(
      init.message,
      init.cause === undefined ? undefined : { cause: init.cause },
    );
    this.name = new.target.name;
    this.kind = init.kind;
    this.code = init.code;
    this.detail = init.detail;
  }
}

/** The one error that every operation of every backend rejects with. Match `code`, never the message. */
export class EngineError<
  C extends ErrorCode = ErrorCode,
> extends FlowFabricError {
  declare readonly kind: ErrorKind;
  declare readonly code: C;
  declare readonly detail: ErrorDetails[C];
  /** Recognised across two copies of this package. */
  readonly brand = BRAND;
  /** Call-site label, outermost last; only on transport-like families. */
  readonly context?: string;

  constructor(
    code: C,
    detail: ErrorDetails[C],
    options: { cause?: unknown; context?: string } = {},
  ) {
    const { kind, says } = ERROR_TABLE[code];
    super({
      kind,
      code,
      detail,
      message: renderMessage(code, says, detail, options.context),
      cause: options.cause,
    });
    this.name = "EngineError";
    if (options.context !== undefined) this.context = options.context;
  }

  get errorClass(): ErrorClass {
    const detail = this.detail as Record<string, unknown>;
    if (this.code === "transport")
      return RETRYABLE_TRANSPORT.has(String(detail["backendKind"]))
        ? "retryable"
        : "terminal";
    if (this.code === "unavailable")
      return ["shutdown", "stream_ops"].includes(String(detail["op"]))
        ? "retryable"
        : "terminal";
    return ERROR_TABLE[this.code].errorClass;
  }

  get retryable(): boolean {
    return this.errorClass === "retryable";
  }
}

/** Shorthand used by backends and rules. */
export function engineError<C extends ErrorCode>(
  code: C,
  detail: ErrorDetails[C],
  cause?: unknown,
): EngineError<C> {
  return new EngineError(code, detail, cause === undefined ? {} : { cause });
}

/** `invalid_input` naming the field and what is wrong with its value. */
export function invalidInput(
  field: string,
  reason: string,
): EngineError<"invalid_input"> {
  return new EngineError("invalid_input", { reason, field });
}

/**
 * Is this an {@link EngineError}, and of this code? Narrows `detail`. Works across two copies of the
 * package because it looks at a brand, not at the class.
 */
export function isEngineError(error: unknown): error is EngineError;
export function isEngineError<C extends ErrorCode>(
  error: unknown,
  code: C,
): error is EngineError<C>;
export function isEngineError(error: unknown, code?: ErrorCode): boolean {
  if (typeof error !== "object" || error === null) return false;
  const candidate = error as { brand?: unknown; code?: unknown };
  return (
    candidate.brand === BRAND && (code === undefined || candidate.code === code)
  );
}

/** Answers after which a lease is lost for good and renewal ends; specification 03 §5. */
export function stopsRenewal(error: unknown): boolean {
  return isEngineError(error) && ERROR_TABLE[error.code]?.stopsRenewal === true;
}

/**
 * A refusal inside an atomic unit: returned, not thrown, so that a unit which must record something
 * still commits. It becomes an {@link EngineError} at the unit's edge.
 */
export interface Refusal {
  readonly refused: EngineError;
}
export function refuse<C extends ErrorCode>(
  code: C,
  detail: ErrorDetails[C],
): Refusal {
  return { refused: new EngineError(code, detail) };
}
export function isRefusal(answer: unknown): answer is Refusal {
  return typeof answer === "object" && answer !== null && "refused" in answer;
}

/** What was wrong first, then what it means and what to do: `invalid_input: laneId: empty. An argument was …`. */
function renderMessage(
  code: string,
  says: string,
  detail: object,
  context: string | undefined,
): string {
  const { reason, message, field, ...rest } = detail as Record<string, unknown>;
  const what = [field, reason ?? message]
    .filter((part) => part !== undefined)
    .map(String);
  const others = Object.entries(rest).map(
    ([key, value]) => `${key}=${String(value)}`,
  );
  const sentence = `${says[0]!.toUpperCase()}${says.slice(1)}`;
  return [
    context === undefined ? "" : `${context}: `,
    `${code}: `,
    what.length === 0 ? "" : `${what.join(": ")}. `,
    sentence,
    others.length === 0 ? "" : ` (${others.join(", ")})`,
  ].join("");
}
