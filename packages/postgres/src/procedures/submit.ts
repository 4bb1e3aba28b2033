/**
 * Writing new executions; the same inside the engine's transactions and a caller's. One statement writes any number of
 * them; repeats, which it passes over, are looked up in a transaction behind it.
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
  type Grouped,
  type Refusal,
  type SubmitManyResult,
} from "@flowfabric/core";
import {
  attemptStateCode,
  executionIdOf,
  reasonCode,
  uuidToBytes,
  type ExecutionRow,
} from "@flowfabric/core/sql";

import { Database } from "../db.js";
import { grouped } from "../grouped.js";
import { notified } from "../notifier.js";
import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { FIND_EXECUTION, readBySeq, selectExecution } from "./executions.js";
import { eventCode } from "./log.js";
import { Packed, unpacked, type Slice } from "./packed.js";
import type { Route } from "./routes.js";

type Submitted = CreateExecutionResult | Refusal;
type Created = Extract<CreateExecutionResult, { kind: "created" }>;

/** Looks at the key and the id again when another submission got in between, this often. */
const LOOKS_MAX = 3;

/** Submissions of one process that come at the same time leave together. */
export class Submissions {
  readonly #grouped: Grouped<CreateExecutionArgs, Submitted>;

  constructor(store: Store) {
    this.#grouped = grouped((items) => submitEach(store, items));
  }

  submit(args: CreateExecutionArgs): Promise<Submitted> {
    return this.#grouped.call(args, args.inputPayload?.length ?? 0);
  }
}

export async function submitBatch(
  store: Store,
  { items, atomicity }: Args<"submitMany">,
): Promise<SubmitManyResult[]> {
  const valid = items.filter(
    (item): item is CreateExecutionArgs => !isEngineError(item),
  );
  if (atomicity === "perItem") {
    const answers = (await submitEach(store, valid)).values();
    return items.map((item) =>
      resultOf(isEngineError(item) ? { refused: item } : answers.next().value!),
    );
  }
  try {
    return await store.db.write(async (tx) => {
      const answers = (await submitAll(store, tx, valid)).values();
      const results = items.map((item) =>
        resultOf(
          isEngineError(item) ? { refused: item } : answers.next().value!,
        ),
      );
      if (results.some(({ kind }) => kind === "rejected"))
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

/** Each for itself: one statement for all that are new; whatever it did not write is looked at more closely. */
async function submitEach(
  store: Store,
  items: readonly CreateExecutionArgs[],
): Promise<Submitted[]> {
  const plain = plainOf(items);
  const written = await writeTogether(store, store.db, plain);
  if (written.size === items.length)
    return items.map((item) => written.get(item)!);
  return await store.db.write(async (tx) => {
    const answers: Submitted[] = [];
    for (const item of items)
      answers.push(written.get(item) ?? (await submit(store, tx, item)));
    return answers;
  });
}

/** As {@link submitEach}, inside one transaction. */
async function submitAll(
  store: Store,
  tx: Session,
  items: readonly CreateExecutionArgs[],
): Promise<Submitted[]> {
  const written = await writeTogether(store, tx, plainOf(items));
  const answers: Submitted[] = [];
  for (const item of items)
    answers.push(written.get(item) ?? (await submit(store, tx, item)));
  return answers;
}

/** What a statement can write without a look: the first with its id and its key, with a policy that is one. */
function plainOf(items: readonly CreateExecutionArgs[]): PlainItem[] {
  const ids = new Set<string>();
  const keys = new Set<string>();
  const plain: PlainItem[] = [];
  for (const args of items) {
    const key = keyOf(args);
    const name = `${args.namespace}\n${args.laneId}\n${key}`;
    const policy = parsePolicy(args.policy);
    const isRepeat =
      ids.has(args.executionId) || (key !== null && keys.has(name));
    ids.add(args.executionId);
    keys.add(name);
    if (!isRepeat && !isEngineError(policy)) plain.push({ args, policy });
  }
  return plain;
}

interface PlainItem {
  readonly args: CreateExecutionArgs;
  readonly policy: ExecutionPolicy;
}

/** By one statement, alone or as part of a transaction; has no answer for what it did not write. */
async function writeTogether(
  store: Store,
  db: Database | Session,
  items: readonly PlainItem[],
): Promise<Map<CreateExecutionArgs, Created>> {
  const answers = new Map<CreateExecutionArgs, Created>();
  if (items.length === 0) return answers;
  const records: SubmitRecord[] = [];
  const payloads = new Packed();
  for (const { args, policy } of items) {
    const required = requiredOf(policy);
    // Inside a transaction this is thrown, and the transaction run again.
    if (db instanceof Database)
      await store.routes.create(db, args.namespace, args.laneId, required);
    const route = store.routes.ensure(args.namespace, args.laneId, required);
    records.push({
      ...recordOf(args, policy, route),
      ...payloads.add(payloadOf(args)),
    });
  }
  const lanes = [...new Set(items.map(({ args }) => args.laneId))];
  const isOwn = db instanceof Database;
  // A transaction tells with its end; a statement of its own does so itself.
  const toTell = isOwn ? store.wakeups.toTell(lanes) : NOTHING_TO_TELL;
  const values = [
    JSON.stringify(records),
    payloads.bytes(),
    ...store.db.notifier.values(toTell),
  ];
  const rows = isOwn
    ? await db.query<WrittenRow>(INSERT_EXECUTIONS, ...values)
    : await db.all<WrittenRow>(
        db.isCallers ? INSERT_FOR_CALLER : INSERT_EXECUTIONS,
        ...values,
      );
  const byId = new Map(rows.map((row) => [executionIdOf(row), row]));
  for (const { args } of items) {
    const row = byId.get(args.executionId);
    if (row === undefined) continue;
    answers.set(args, {
      kind: "created",
      executionId: args.executionId,
      publicState: row.delayed ? "delayed" : "waiting",
    });
  }
  if (answers.size === 0) return answers;
  const arm = () => {
    for (const { deadline_in: inMs } of rows)
      if (inMs !== null) store.wakeups.ringTimer(inMs);
  };
  // A delayed one is no work yet, but a parked claim must learn when it will be.
  if (isOwn) {
    store.wakeups.noteTold(toTell);
    store.wakeups.ringHere(lanes, 0);
    arm();
  } else {
    store.wakeups.ring(db, lanes);
    db.afterCommit(arm);
  }
  return answers;
}

const NOTHING_TO_TELL: ReadonlyMap<string, number> = new Map();

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
    const earlier =
      (key === null ? undefined : await findByKey(tx, args, key, tx.now())) ??
      (await selectExecution(tx, FIND_EXECUTION, uuidToBytes(uuid), partition));
    if (earlier !== undefined)
      return {
        kind: "duplicate",
        executionId: executionIdOf(earlier),
        mismatch: !(await isSameRequest(store, tx, earlier, args)),
      };

    const policy = parsePolicy(args.policy);
    if (isEngineError(policy)) return { refused: policy };

    const written = await writeTogether(store, tx, [{ args, policy }]);
    const created = written.get(args);
    // Another submission with this key has committed since the look above.
    if (created === undefined) continue;
    return created;
  }
  throw engineError("retry_exhausted", { attempts: LOOKS_MAX });
}

interface WrittenRow {
  readonly id: Uint8Array;
  readonly partition: number;
  readonly delayed: boolean;
  /** Milliseconds from its creation. */
  readonly deadline_in: number | null;
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

function payloadOf({
  inputPayload,
}: CreateExecutionArgs): Uint8Array | undefined {
  return inputPayload?.length === 0 ? undefined : inputPayload;
}

/**
 * What the statement takes of one submission; instants that depend on the clock are its matter. What is not set is left
 * out, for whatever is said has to be read.
 */
interface SubmitRecord extends Slice {
  readonly id: string;
  readonly partition: number;
  readonly route: number;
  readonly kind: string;
  readonly priority: number;
  readonly delay_until: number | undefined;
  readonly deadline_at: number | undefined;
  readonly deadline_in: number | undefined;
  readonly timeout_ms: number | undefined;
  readonly max_reclaims: number | undefined;
  readonly keep_ms: number | undefined;
  readonly tags: string | undefined;
  readonly policy: string | undefined;
  readonly fingerprint: string | undefined;
  readonly key: string | undefined;
  readonly creator: string | undefined;
  /** Where and how long the key is remembered; absent where it is not. */
  readonly namespace: string | undefined;
  readonly lane: string | undefined;
  readonly remember_ms: number | undefined;
}

function recordOf(
  args: CreateExecutionArgs,
  policy: ExecutionPolicy,
  route: Route,
): SubmitRecord {
  const { partition, uuid } = parseExecutionId(args.executionId)!;
  const key = keyOf(args);
  const isRemembered = key !== null && policy.dedupWindowMs > 0;
  return {
    id: uuid,
    partition,
    route: route.id,
    kind: args.executionKind,
    priority: clampPriority(args.priority ?? policy.priority ?? 0),
    delay_until: args.delayUntilMs ?? policy.delayUntilMs,
    deadline_at: args.executionDeadlineAtMs,
    deadline_in: policy.timeoutPolicy?.executionDeadlineMs,
    timeout_ms: policy.timeoutPolicy?.attemptTimeoutMs,
    max_reclaims: policyReclaimCap(policy),
    keep_ms: policy.streamPolicy?.retentionTtlMs,
    tags:
      Object.keys(args.tags).length === 0
        ? undefined
        : JSON.stringify(args.tags),
    policy: args.policy === undefined ? undefined : canonicalJson(args.policy),
    fingerprint: requestFingerprint(args),
    key: key ?? undefined,
    creator: args.creatorIdentity,
    namespace: isRemembered ? args.namespace : undefined,
    lane: isRemembered ? args.laneId : undefined,
    remember_ms: isRemembered ? policy.dedupWindowMs : undefined,
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

/**
 * Records as JSON, then their payloads. Nothing is written where the id exists or the key is remembered. Whoever
 * commits such a one at the same instant makes this statement wait, and then either passes over the item (by its key)
 * or fails (by its id); failed, it is run again, and finds the id.
 */
const insertExecutions = (logged: string) => `
  WITH clock AS MATERIALIZED (
    SELECT now_ms() AS now
  ), given AS MATERIALIZED (
    SELECT r.*, clock.now, coalesce(r.delay_until > clock.now, FALSE) AS delayed,
      coalesce(r.deadline_at, clock.now + r.deadline_in) AS ends_at, nextval('{schema}.executions_seq_seq') AS seq
    FROM clock, json_to_recordset(?::JSON) AS r (
      id UUID, partition INTEGER, route BIGINT, kind TEXT, priority INTEGER, delay_until BIGINT, deadline_at BIGINT,
      deadline_in BIGINT, timeout_ms BIGINT, max_reclaims INTEGER, keep_ms BIGINT, tags TEXT, policy TEXT,
      fingerprint TEXT, key TEXT, creator TEXT, namespace TEXT, lane TEXT, remember_ms BIGINT, from_byte INTEGER,
      size INTEGER
    )
    WHERE (SELECT seq FROM executions AS e WHERE e.id = r.id AND e.partition = r.partition) IS NULL
  ), remembered AS (
    INSERT INTO idempotency AS stored (namespace, lane, idempotency_key, seq, expires_at)
    SELECT namespace, lane, key, seq, now + remember_ms
    FROM given
    WHERE remember_ms IS NOT NULL
    ORDER BY namespace, lane, key
    ON CONFLICT (namespace, lane, idempotency_key) DO UPDATE
    SET seq = excluded.seq, expires_at = excluded.expires_at
    WHERE stored.expires_at <= now_ms()
    RETURNING seq
  ), fresh AS MATERIALIZED (
    SELECT *
    FROM given
    WHERE remember_ms IS NULL OR seq IN (SELECT seq FROM remembered)
  ), written AS (
    INSERT INTO executions
      (seq, id, partition, route, kind, created_at, home, score, reason, attempt_state, priority, events, epoch, attempt,
        attempts, retries, reclaims, reclaims_total, replays, holds, transitioned_at, mutated_at, delay_until,
        deadline_at, timeout_ms, timer_at, max_reclaims, keep_ms, tags)
    SELECT seq, id, partition, route, kind, now,
      CASE WHEN delayed THEN ${HOME.delayed} ELSE ${HOME.eligible} END,
      CASE WHEN delayed THEN delay_until ELSE now - priority * ${PRIORITY_STEP_MS} END,
      CASE WHEN delayed THEN ${reasonCode("waiting_for_delay")} ELSE ${reasonCode("waiting_for_worker")} END,
      ${PENDING_FIRST}, priority, 1, 0, 0, 0, 0, 0, 0, 0, 0, now, now, CASE WHEN delayed THEN delay_until END,
      ends_at, timeout_ms, ends_at, max_reclaims, keep_ms, tags
    FROM fresh
  ), kept AS (
    INSERT INTO inputs (seq, payload, policy, fingerprint, idempotency_key, creator)
    SELECT seq, ${unpacked("fresh")}, policy, fingerprint, key, creator
    FROM fresh
    WHERE num_nonnulls(size, policy, fingerprint, key, creator) > 0
  ), tagged AS (
    INSERT INTO tags (tag_key, tag_value, created_at, id, seq)
    SELECT tag.key, tag.value, now, id, seq
    FROM fresh, json_each_text(tags::JSON) AS tag
    WHERE tags IS NOT NULL
  ), logged AS (
    INSERT INTO events (position, execution, n, at, type, actor, state, data, tags)
${logged}
  ), notified AS (${notified("EXISTS (SELECT 1 FROM fresh)")}
  )
  SELECT id, partition, delayed, ends_at - now AS deadline_in
  FROM fresh
  LEFT JOIN notified ON TRUE`;

const created = (position: string) => `
    SELECT ${position}, seq, 1, now, ${CREATED}, ${CLIENT},
      CASE WHEN delayed THEN ${STATE_DELAYED} ELSE ${STATE_ELIGIBLE} END, NULL, tags
    FROM fresh`;

/** The feed of tags shows it where it has any. */
const INSERT_EXECUTIONS = insertExecutions(
  created(
    "CASE WHEN tags IS NOT NULL THEN nextval('{schema}.events_position') END",
  ),
);

/** No position is drawn, for that would stall the feeds until the caller commits; see \`unplaced.ts\`. */
const INSERT_FOR_CALLER = insertExecutions(`${created("NULL::BIGINT")}
    UNION ALL
    SELECT NULL, seq, NULL, now, ${eventCode("tags_changed")}, ${CLIENT}, NULL, '{"attached":' || tags || '}', tags
    FROM fresh
    WHERE tags IS NOT NULL`);

const FIND_KEY = `
  SELECT seq
  FROM idempotency
  WHERE namespace = ? AND lane = ? AND idempotency_key = ? AND expires_at > ?`;

const READ_INPUT = `
  SELECT payload, policy, fingerprint
  FROM inputs
  WHERE seq = ?`;
