/**
 * Writing new executions; the same inside the engine's transactions and a caller's. Without idempotency keys one
 * statement writes any number of them; keys and repeats are looked up first, in a transaction.
 */
import {
  canonicalJson,
  clampPriority,
  engineError,
  EVENT_TYPES,
  HOME,
  invalidInput,
  isEngineError,
  isRefusal,
  packState,
  parseExecutionId,
  parsePolicy,
  policyReclaimCap,
  PRIORITY_STEP_MS,
  requestFingerprint,
  sameRequest,
  type Args,
  type CreateExecutionArgs,
  type CreateExecutionResult,
  type ExecutionPolicy,
  type Refusal,
  type SubmitManyResult,
} from "@flowfabric/core";

import { LostRace, type Session } from "../db.js";
import {
  attemptStateCode,
  executionIdOf,
  reasonCode,
  uuidToBytes,
  type ExecutionRow,
} from "../rows.js";
import type { Store } from "../store.js";
import { FIND_EXECUTION, readBySeq, selectExecution } from "./executions.js";
import type { Route } from "./routes.js";

type Submitted = CreateExecutionResult | Refusal;

/** Looks at the key and the id again when another submission got in between, this often. */
const LOOKS_MAX = 3;

export async function submitOne(
  store: Store,
  args: CreateExecutionArgs,
): Promise<Submitted> {
  const [fast] = (await submitFast(store, [args])) ?? [];
  return fast ?? (await store.db.write((tx) => submit(store, tx, args)));
}

export async function submitBatch(
  store: Store,
  { items, atomicity }: Args<"submitMany">,
): Promise<SubmitManyResult[]> {
  const valid = items.filter(
    (item): item is CreateExecutionArgs => !isEngineError(item),
  );
  if (valid.length === items.length) {
    const answers = await submitFast(store, valid);
    if (answers !== undefined) {
      const results: SubmitManyResult[] = [];
      for (const [index, answer] of answers.entries()) {
        const settled =
          answer ??
          (await store.db.write((tx) => submit(store, tx, valid[index]!)));
        results.push(resultOf(settled));
      }
      return results;
    }
  }
  try {
    return await store.db.write(async (tx) => {
      const results: SubmitManyResult[] = [];
      for (const item of items)
        results.push(
          resultOf(
            isEngineError(item)
              ? { refused: item }
              : await submit(store, tx, item),
          ),
        );
      if (
        atomicity === "allOrNothing" &&
        results.some(({ kind }) => kind === "rejected")
      )
        throw new BatchRejected(results);
      return results;
    });
  } catch (error) {
    if (!(error instanceof BatchRejected)) throw error;
    const { code, detail } = invalidInput(
      "items",
      "batch_rejected: another item of this batch was rejected; nothing was written",
    );
    return error.results.map((result) =>
      result.kind === "created" ? { kind: "rejected", code, detail } : result,
    );
  }
}

/** Takes the transaction down; the results say why. */
class BatchRejected extends Error {
  readonly results: readonly SubmitManyResult[];
  constructor(results: readonly SubmitManyResult[]) {
    super("batch rejected");
    this.results = results;
  }
}

function resultOf(answer: Submitted): SubmitManyResult {
  return isRefusal(answer)
    ? {
        kind: "rejected",
        code: answer.refused.code,
        detail: answer.refused.detail,
      }
    : answer;
}

/**
 * One statement for all of them.
 * @returns nothing where one needs a closer look before anything is written; an item whose id exists has no answer
 */
async function submitFast(
  store: Store,
  items: readonly CreateExecutionArgs[],
): Promise<(CreateExecutionResult | undefined)[] | undefined> {
  if (items.some(keyOf)) return undefined;
  const ids = new Set(items.map(({ executionId }) => executionId));
  if (ids.size < items.length) return undefined;
  const records: SubmitRecord[] = [];
  const lanes = new Set<string>();
  for (const item of items) {
    const policy = parsePolicy(item.policy);
    if (isEngineError(policy)) return undefined;
    const required = requiredOf(policy);
    await store.routes.create(store.db, item.namespace, item.laneId, required);
    const route = store.routes.ensure(item.namespace, item.laneId, required);
    lanes.add(route.lane);
    records.push(recordOf(item, policy, route, null));
  }
  const written = await store.db.query<WrittenRow>(
    INSERT_EXECUTIONS,
    JSON.stringify(records),
    items.map(payloadOf),
  );
  store.wakeups.ring(lanes);
  const homes = new Map(written.map((row) => [executionIdOf(row), row.home]));
  return items.map(({ executionId }) => {
    const home = homes.get(executionId);
    return home === undefined
      ? undefined
      : {
          kind: "created",
          executionId,
          publicState: home === HOME.delayed ? "delayed" : "waiting",
        };
  });
}

/**
 * Read: key, id. Check: policy. Write: record, input, key, tags, event.
 * @returns a refusal where the policy is wrong; nothing was written then
 */
export async function submit(
  store: Store,
  tx: Session,
  args: CreateExecutionArgs,
): Promise<Submitted> {
  const { partition, uuid } = parseExecutionId(args.executionId)!;
  const key = keyOf(args);
  for (let looks = 0; looks < LOOKS_MAX; looks++) {
    const now = tx.now();
    const earlier =
      (key === null ? undefined : await findByKey(tx, args, key, now)) ??
      (await selectExecution(tx, FIND_EXECUTION, uuidToBytes(uuid), partition));
    if (earlier !== undefined)
      return {
        kind: "duplicate",
        executionId: executionIdOf(earlier),
        mismatch: !(await isSameRequest(store, tx, earlier, args)),
      };

    const policy = parsePolicy(args.policy);
    if (isEngineError(policy)) return { refused: policy };

    const route = store.routes.ensure(
      args.namespace,
      args.laneId,
      requiredOf(policy),
    );
    let seq: number | null = null;
    if (key !== null && policy.dedupWindowMs > 0) {
      seq = (await tx.get<{ seq: number }>(NEXT_SEQ))!.seq;
      const remembered = await tx.change(
        REMEMBER_KEY,
        args.namespace,
        args.laneId,
        key,
        seq,
        now + policy.dedupWindowMs,
        now,
      );
      // Another submission with this key has committed since the look above.
      if (remembered === 0) continue;
    }
    const [written] = await tx.all<WrittenRow>(
      INSERT_EXECUTIONS,
      JSON.stringify([recordOf(args, policy, route, seq)]),
      [payloadOf(args)],
    );
    if (written === undefined) {
      // The same, with this id; a key that was written meanwhile has to go.
      if (seq !== null) throw new LostRace("the id was taken");
      continue;
    }
    // A delayed one is no work yet, but a parked claim must learn when it will be.
    tx.afterCommit(() => store.wakeups.ring([route.lane]));
    return {
      kind: "created",
      executionId: args.executionId,
      publicState: written.home === HOME.delayed ? "delayed" : "waiting",
    };
  }
  throw engineError("retry_exhausted", { attempts: LOOKS_MAX });
}

interface WrittenRow {
  readonly id: Uint8Array;
  readonly partition: number;
  readonly home: number;
}

const CREATED = EVENT_TYPES.indexOf("created");
const CLIENT = 0;
const PENDING_FIRST = attemptStateCode("pending_first_attempt");
const STATE_DELAYED = packState(
  HOME.delayed,
  "waiting_for_delay",
  "pending_first_attempt",
);
const STATE_ELIGIBLE = packState(
  HOME.eligible,
  "waiting_for_worker",
  "pending_first_attempt",
);

function keyOf(args: CreateExecutionArgs): string | null {
  return args.idempotencyKey === undefined || args.idempotencyKey === ""
    ? null
    : args.idempotencyKey;
}

function payloadOf(args: CreateExecutionArgs): Uint8Array | null {
  return args.inputPayload === undefined || args.inputPayload.length === 0
    ? null
    : Buffer.from(args.inputPayload);
}

/** What the statement takes of one submission, but for its payload; instants that depend on the clock are its matter. */
interface SubmitRecord {
  readonly seq: number | null;
  readonly id: string;
  readonly partition: number;
  readonly route: number;
  readonly kind: string;
  readonly priority: number;
  readonly delay_until: number | null;
  readonly deadline_at: number | null;
  readonly deadline_in: number | null;
  readonly timeout_ms: number | null;
  readonly max_reclaims: number | null;
  readonly keep_ms: number | null;
  readonly tags: string | null;
  readonly policy: string | null;
  readonly fingerprint: string | null;
  readonly key: string | null;
  readonly creator: string | null;
}

function recordOf(
  args: CreateExecutionArgs,
  policy: ExecutionPolicy,
  route: Route,
  seq: number | null,
): SubmitRecord {
  const { partition, uuid } = parseExecutionId(args.executionId)!;
  return {
    seq,
    id: uuid,
    partition,
    route: route.id,
    kind: args.executionKind,
    priority: clampPriority(args.priority ?? policy.priority ?? 0),
    delay_until: args.delayUntilMs ?? policy.delayUntilMs ?? null,
    deadline_at: args.executionDeadlineAtMs ?? null,
    deadline_in: policy.timeoutPolicy?.executionDeadlineMs ?? null,
    timeout_ms: policy.timeoutPolicy?.attemptTimeoutMs ?? null,
    max_reclaims: policyReclaimCap(policy) ?? null,
    keep_ms: policy.streamPolicy?.retentionTtlMs ?? null,
    tags:
      Object.keys(args.tags).length === 0 ? null : JSON.stringify(args.tags),
    policy: args.policy === undefined ? null : canonicalJson(args.policy),
    fingerprint: requestFingerprint(args) ?? null,
    key: keyOf(args),
    creator: args.creatorIdentity ?? null,
  };
}

export function requiredOf(policy: ExecutionPolicy): readonly string[] {
  const required = policy.routingRequirements?.requiredCapabilities ?? [];
  return [...new Set(required)].sort((a, b) =>
    Buffer.compare(Buffer.from(a), Buffer.from(b)),
  );
}

async function findByKey(
  tx: Session,
  args: CreateExecutionArgs,
  key: string,
  now: number,
): Promise<ExecutionRow | undefined> {
  const found = await tx.get<{ seq: number }>(
    FIND_KEY,
    args.namespace,
    args.laneId,
    key,
    now,
  );
  return found === undefined ? undefined : await readBySeq(tx, found.seq);
}

interface InputRow {
  readonly payload: Uint8Array | null;
  readonly policy: string | null;
  readonly fingerprint: string | null;
}

async function isSameRequest(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  args: CreateExecutionArgs,
): Promise<boolean> {
  const route: Route = store.routes.require(row.route);
  const input = await tx.get<InputRow>(READ_INPUT, row.seq);
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

/** Records as JSON beside their payloads. An id that exists writes nothing and answers nothing. */
const INSERT_EXECUTIONS = `
  WITH clock AS MATERIALIZED (
    SELECT now_ms() AS now
  ), given AS MATERIALIZED (
    SELECT r.*, coalesce(r.delay_until > clock.now, FALSE) AS delayed, clock.now
    FROM clock, ROWS FROM (
      json_to_recordset(?::JSON) AS (
        seq BIGINT, id UUID, partition INTEGER, route BIGINT, kind TEXT, priority INTEGER, delay_until BIGINT,
        deadline_at BIGINT, deadline_in BIGINT, timeout_ms BIGINT, max_reclaims INTEGER, keep_ms BIGINT, tags TEXT,
        policy TEXT, fingerprint TEXT, key TEXT, creator TEXT
      ),
      unnest(?::BYTEA[])
    ) AS r (
      seq, id, partition, route, kind, priority, delay_until, deadline_at, deadline_in, timeout_ms, max_reclaims,
      keep_ms, tags, policy, fingerprint, key, creator, payload
    )
  ), written AS (
    INSERT INTO executions
      (seq, id, partition, route, kind, created_at, home, score, reason, attempt_state, priority, events, epoch, attempt,
        attempts, retries, reclaims, reclaims_total, replays, holds, transitioned_at, mutated_at, delay_until,
        deadline_at, timeout_ms, timer_at, max_reclaims, keep_ms, tags)
    SELECT coalesce(seq, nextval('{schema}.executions_seq_seq')), id, partition, route, kind, now,
      CASE WHEN delayed THEN ${HOME.delayed} ELSE ${HOME.eligible} END,
      CASE WHEN delayed THEN delay_until ELSE now - priority * ${PRIORITY_STEP_MS} END,
      CASE WHEN delayed THEN ${reasonCode("waiting_for_delay")} ELSE ${reasonCode("waiting_for_worker")} END,
      ${PENDING_FIRST}, priority, 1, 0, 0, 0, 0, 0, 0, 0, 0, now, now, CASE WHEN delayed THEN delay_until END,
      coalesce(deadline_at, now + deadline_in), timeout_ms, coalesce(deadline_at, now + deadline_in), max_reclaims,
      keep_ms, tags
    FROM given
    ON CONFLICT (id, partition) DO NOTHING
    RETURNING seq, id, partition, home, created_at, tags
  ), kept AS (
    INSERT INTO inputs (seq, payload, policy, fingerprint, idempotency_key, creator)
    SELECT written.seq, payload, policy, fingerprint, key, creator
    FROM written
    JOIN given ON given.id = written.id AND given.partition = written.partition
    WHERE num_nonnulls(payload, policy, fingerprint, key, creator) > 0
  ), tagged AS (
    INSERT INTO tags (tag_key, tag_value, created_at, id, seq)
    SELECT tag.key, tag.value, created_at, id, seq
    FROM written, json_each_text(tags::JSON) AS tag
    WHERE tags IS NOT NULL
  ), logged AS (
    INSERT INTO events (position, execution, n, at, type, actor, state, tags)
    SELECT NULL, seq, 1, created_at, ${CREATED}, ${CLIENT},
      CASE WHEN home = ${HOME.delayed} THEN ${STATE_DELAYED} ELSE ${STATE_ELIGIBLE} END, tags
    FROM written
  )
  SELECT id, partition, home
  FROM written`;

const NEXT_SEQ = `
  SELECT nextval('{schema}.executions_seq_seq') AS seq`;

const FIND_KEY = `
  SELECT seq
  FROM idempotency
  WHERE namespace = ? AND lane = ? AND idempotency_key = ? AND expires_at > ?`;

/** Takes the place of a key that has lapsed; meets no row where it has not. */
const REMEMBER_KEY = `
  INSERT INTO idempotency AS stored (namespace, lane, idempotency_key, seq, expires_at)
  VALUES (?, ?, ?, ?, ?)
  ON CONFLICT (namespace, lane, idempotency_key) DO UPDATE
  SET seq = excluded.seq, expires_at = excluded.expires_at
  WHERE stored.expires_at <= ?`;

const READ_INPUT = `
  SELECT payload, policy, fingerprint
  FROM inputs
  WHERE seq = ?`;
