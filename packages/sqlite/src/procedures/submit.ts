/** Writing a new execution; the same inside the engine's transactions and a caller's. */
import {
  canonicalJson,
  clampPriority,
  EVENT_TYPES,
  HOME,
  isEngineError,
  packState,
  parseExecutionId,
  parsePolicy,
  policyReclaimCap,
  requestFingerprint,
  sameRequest,
  sortKey,
  type CreateExecutionArgs,
  type CreateExecutionResult,
  type ExecutionPolicy,
  type Refusal,
} from "@flowfabric/core";
import {
  attemptStateCode,
  executionIdOf,
  reasonCode,
  uuidToBytes,
  type ExecutionRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { FIND_EXECUTION, readBySeq, selectExecution } from "./executions.js";
import { INSERT_EVENT } from "./log.js";
import type { Route } from "./routes.js";

/**
 * Read: key, id. Check: policy. Write: record, input, key, tags, event.
 * @returns a refusal where the policy is wrong; nothing was written then
 */
export function submit(
  store: Store,
  tx: Session,
  args: CreateExecutionArgs,
): CreateExecutionResult | Refusal {
  const now = tx.now();
  const { partition, uuid } = parseExecutionId(args.executionId)!;
  const id = uuidToBytes(uuid);
  const key =
    args.idempotencyKey === undefined || args.idempotencyKey === ""
      ? null
      : args.idempotencyKey;

  const earlier =
    (key === null ? undefined : findByKey(tx, args, key, now)) ??
    selectExecution(tx, FIND_EXECUTION, id, partition);
  if (earlier !== undefined)
    return {
      kind: "duplicate",
      executionId: executionIdOf(earlier),
      mismatch: !isSameRequest(store, tx, earlier, args),
    };

  const policy = parsePolicy(args.policy);
  if (isEngineError(policy)) return { refused: policy };

  const route = store.routes.ensure(
    tx,
    args.namespace,
    args.laneId,
    requiredOf(policy),
  );
  const priority = clampPriority(args.priority ?? policy.priority ?? 0);
  const delayUntil = args.delayUntilMs ?? policy.delayUntilMs;
  const delayed = delayUntil !== undefined && delayUntil > now;
  const relativeDeadline = policy.timeoutPolicy?.executionDeadlineMs;
  const deadlineAt =
    args.executionDeadlineAtMs ??
    (relativeDeadline === undefined ? null : now + relativeDeadline);
  const seq = tx.nextPosition();
  const home = delayed ? HOME.delayed : HOME.eligible;
  const reason = delayed ? "waiting_for_delay" : "waiting_for_worker";
  const tags =
    Object.keys(args.tags).length === 0 ? null : JSON.stringify(args.tags);

  tx.run(
    INSERT_EXECUTION,
    seq,
    id,
    partition,
    route.id,
    args.executionKind,
    now,
    home,
    delayed ? delayUntil : sortKey(now, priority),
    reasonCode(reason),
    PENDING_FIRST,
    priority,
    now,
    now,
    delayed ? delayUntil : null,
    deadlineAt,
    policy.timeoutPolicy?.attemptTimeoutMs ?? null,
    deadlineAt,
    policyReclaimCap(policy) ?? null,
    policy.streamPolicy?.retentionTtlMs ?? null,
    tags,
  );
  writeInput(tx, seq, args, key);
  if (key !== null && policy.dedupWindowMs > 0)
    tx.run(
      REMEMBER_KEY,
      args.namespace,
      args.laneId,
      key,
      seq,
      now + policy.dedupWindowMs,
    );
  for (const [tagKey, value] of Object.entries(args.tags))
    tx.run(INSERT_TAG, tagKey, value, now, id, seq);
  tx.run(
    INSERT_EVENT,
    seq,
    seq,
    1,
    now,
    CREATED,
    CLIENT,
    packState(home, reason, "pending_first_attempt"),
    null,
    null,
    null,
    null,
    null,
    null,
    null,
    tags,
  );

  if (deadlineAt !== null)
    tx.afterCommit(() => store.wakeups.ringTimer(deadlineAt - now));
  // A delayed one is no work yet, but a parked claim must learn when it will be.
  tx.afterCommit(() => store.wakeups.ring([route.lane]));
  return {
    kind: "created",
    executionId: args.executionId,
    publicState: delayed ? "delayed" : "waiting",
  };
}

const CREATED = EVENT_TYPES.indexOf("created");
const CLIENT = 0;
const PENDING_FIRST = attemptStateCode("pending_first_attempt");

function requiredOf(policy: ExecutionPolicy): readonly string[] {
  const required = policy.routingRequirements?.requiredCapabilities ?? [];
  return [...new Set(required)].sort((a, b) =>
    Buffer.compare(Buffer.from(a), Buffer.from(b)),
  );
}

function findByKey(
  tx: Session,
  args: CreateExecutionArgs,
  key: string,
  now: number,
): ExecutionRow | undefined {
  const found = tx.get<{ seq: number }>(
    FIND_KEY,
    args.namespace,
    args.laneId,
    key,
    now,
  );
  return found === undefined ? undefined : readBySeq(tx, found.seq);
}

interface InputRow {
  readonly payload: Uint8Array | null;
  readonly policy: string | null;
  readonly fingerprint: string | null;
}

function isSameRequest(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  args: CreateExecutionArgs,
): boolean {
  const route: Route = store.routes.require(tx, row.route);
  const input = tx.get<InputRow>(READ_INPUT, row.seq);
  return sameRequest(
    {
      namespace: route.namespace,
      laneId: route.lane,
      executionKind: row.kind,
      inputPayload: input?.payload ?? new Uint8Array(),
      policyJson: input?.policy ?? undefined,
      fingerprint: input?.fingerprint ?? undefined,
    },
    args,
  );
}

function writeInput(
  tx: Session,
  seq: number,
  args: CreateExecutionArgs,
  key: string | null,
): void {
  const payload =
    args.inputPayload === undefined || args.inputPayload.length === 0
      ? null
      : args.inputPayload;
  const policy = args.policy === undefined ? null : canonicalJson(args.policy);
  const fingerprint = requestFingerprint(args) ?? null;
  const creator = args.creatorIdentity ?? null;
  if (
    payload === null &&
    policy === null &&
    fingerprint === null &&
    key === null &&
    creator === null
  )
    return;
  tx.run(INSERT_INPUT, seq, payload, policy, fingerprint, key, creator);
}

export const INSERT_EXECUTION = `
  INSERT INTO executions
    (seq, id, partition, route, kind, created_at, home, score, reason, attempt_state, priority, events, epoch, attempt,
      attempts, retries, reclaims, reclaims_total, replays, holds, transitioned_at, mutated_at, delay_until,
      deadline_at, timeout_ms, timer_at, max_reclaims, keep_ms, tags)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 0, 0, 0, 0, 0, 0, 0, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;

export const INSERT_INPUT = `
  INSERT INTO inputs (seq, payload, policy, fingerprint, idempotency_key, creator)
  VALUES (?, ?, ?, ?, ?, ?)`;

export const FIND_KEY = `
  SELECT seq
  FROM idempotency
  WHERE namespace = ? AND lane = ? AND idempotency_key = ? AND expires_at > ?`;

/** Takes the place of a key that has lapsed. */
const REMEMBER_KEY = `
  INSERT INTO idempotency (namespace, lane, idempotency_key, seq, expires_at)
  VALUES (?, ?, ?, ?, ?)
  ON CONFLICT (namespace, lane, idempotency_key) DO UPDATE
  SET seq = excluded.seq, expires_at = excluded.expires_at`;

const INSERT_TAG = `
  INSERT INTO tags (tag_key, tag_value, created_at, id, seq)
  VALUES (?, ?, ?, ?, ?)`;

const READ_INPUT = `
  SELECT payload, policy, fingerprint
  FROM inputs
  WHERE seq = ?`;
