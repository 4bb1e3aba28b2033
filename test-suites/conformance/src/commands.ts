/**
 * What random clients do. A command is plain data, so that a failing run can be printed, shrunk and repeated; whom it hits
 * is decided when it runs, by picking among what exists then.
 */
import { SWEEPS, TIMEOUT_BEHAVIORS } from "@flowfabric/core";
import fc from "fast-check";

const CAPABILITIES = ["gpu", "eu"] as const;
const pick = fc.nat(1_000);
const lane = fc.nat(1);
const worker = fc.nat(2);
const ttlMs = fc.constantFrom(400, 2_000, 60_000);
const capabilities = fc.subarray([...CAPABILITIES]);

const policy = fc.record({
  retries: fc.constantFrom<"none" | "now" | "later">("none", "now", "later"),
  attemptTimeoutMs: fc.option(fc.constantFrom(500, 5_000)),
  retryOnTimeout: fc.boolean(),
  deadlineMs: fc.option(fc.constantFrom(1_500, 20_000)),
  reclaims: fc.option(fc.nat(2)),
  required: fc.oneof(
    { weight: 4, arbitrary: fc.constant<string[]>([]) },
    { weight: 1, arbitrary: capabilities },
  ),
});
export type PolicySpec =
  typeof policy extends fc.Arbitrary<infer T> ? T : never;

const submission = fc.record({
  lane,
  priority: fc.nat(3),
  delayMs: fc.option(fc.constantFrom(300, 3_000)),
  key: fc.option(fc.nat(3)),
  tag: fc.option(fc.nat(2)),
  namespace: fc.constantFrom("default", "other"),
  policy: fc.option(policy),
});
export type SubmissionSpec =
  typeof submission extends fc.Arbitrary<infer T> ? T : never;

const claim = fc.record({
  worker,
  lanes: fc.subarray([0, 1], { minLength: 1 }),
  max: fc.integer({ min: 1, max: 4 }),
  ttlMs,
  capabilities,
});
export type ClaimSpec = typeof claim extends fc.Arbitrary<infer T> ? T : never;

const suspension = fc.record({
  keys: fc.subarray(["a", "b"], { minLength: 1 }),
  until: fc.constantFrom(
    "all" as const,
    "two sources" as const,
    "an operator" as const,
  ),
  /** On a waitpoint made before, where there is one. */
  pending: fc.boolean(),
  timeoutMs: fc.option(fc.constantFrom(0, 600, 5_000)),
  behavior: fc.constantFrom(...TIMEOUT_BEHAVIORS),
  delayMs: fc.option(fc.constantFrom(0, 700)),
  /** Asked for again at once, as after a lost reply. */
  again: fc.boolean(),
});
export type SuspensionSpec =
  typeof suspension extends fc.Arbitrary<infer T> ? T : never;

const reason = fc.constantFrom(
  "waiting_for_budget",
  "waiting_for_quota",
  "waiting_for_capable_worker",
  "paused_by_operator",
  "paused_by_policy",
);

/** Weights make long lives likely: claims and outcomes often, ends by force seldom. */
export const commands = fc.oneof(
  weighted(6, { do: fc.constant("submit" as const), spec: submission }),
  weighted(1, {
    do: fc.constant("submitMany" as const),
    specs: fc.array(submission, { minLength: 1, maxLength: 3 }),
  }),
  weighted(7, { do: fc.constant("claimMany" as const), spec: claim }),
  weighted(2, {
    do: fc.constant("claimForWorker" as const),
    worker,
    lane,
    capabilities,
  }),
  weighted(2, {
    do: fc.constant("grant" as const),
    pick,
    worker,
    capabilities,
  }),
  weighted(3, { do: fc.constant("useGrant" as const), pick, worker, ttlMs }),
  weighted(1, { do: fc.constant("grantAndClaim" as const), pick, ttlMs }),
  weighted(5, { do: fc.constant("complete" as const), pick }),
  weighted(1, {
    do: fc.constant("completeByFence" as const),
    pick,
    override: fc.boolean(),
  }),
  weighted(2, {
    do: fc.constant("completeAndClaim" as const),
    picks: fc.array(pick, { minLength: 1, maxLength: 3 }),
    failing: fc.boolean(),
    spec: claim,
  }),
  weighted(4, {
    do: fc.constant("fail" as const),
    pick,
    permanent: fc.boolean(),
  }),
  weighted(1, { do: fc.constant("cancelOwn" as const), pick }),
  weighted(3, {
    do: fc.constant("delay" as const),
    pick,
    delayMs: fc.constantFrom(0, 800),
  }),
  weighted(4, { do: fc.constant("suspend" as const), pick, spec: suspension }),
  // In one go, for a suspension takes more steps in the right order than chance often makes.
  weighted(5, {
    do: fc.constant("submitAndSuspend" as const),
    submission,
    claim,
    spec: suspension,
    votes: fc.array(fc.record({ pick: fc.nat(2), source: fc.nat(1) }), {
      maxLength: 4,
    }),
  }),
  weighted(2, {
    do: fc.constant("waitpoint" as const),
    pick,
    expiresInMs: fc.constantFrom(400, 60_000),
  }),
  weighted(8, {
    do: fc.constant("signal" as const),
    pick,
    source: fc.nat(1),
    again: fc.boolean(),
  }),
  weighted(1, { do: fc.constant("approve" as const), pick, vote: fc.nat(1) }),
  weighted(1, { do: fc.constant("closeWaitpoint" as const), pick }),
  weighted(1, { do: fc.constant("resume" as const), pick }),
  weighted(1, { do: fc.constant("timeOut" as const), pick }),
  weighted(2, { do: fc.constant("progress" as const), pick }),
  weighted(3, { do: fc.constant("renew" as const), pick }),
  weighted(3, {
    do: fc.constant("append" as const),
    pick,
    texts: fc.array(fc.constantFrom("a", "b", ""), {
      minLength: 1,
      maxLength: 3,
    }),
  }),
  weighted(1, { do: fc.constant("cancel" as const), pick }),
  weighted(3, { do: fc.constant("replay" as const), pick }),
  weighted(1, { do: fc.constant("hold" as const), pick }),
  weighted(2, { do: fc.constant("unhold" as const), pick }),
  weighted(2, { do: fc.constant("block" as const), pick, reason }),
  weighted(2, {
    do: fc.constant("unblock" as const),
    pick,
    reason: fc.option(reason),
  }),
  weighted(1, {
    do: fc.constant("priority" as const),
    pick,
    priority: fc.nat(3),
  }),
  weighted(1, { do: fc.constant("tag" as const), pick, value: fc.nat(2) }),
  weighted(2, { do: fc.constant("revoke" as const), pick, hold: fc.boolean() }),
  weighted(2, {
    do: fc.constant("reclaim" as const),
    pick,
    worker,
    ttlMs,
    capabilities,
  }),
  weighted(1, { do: fc.constant("markLapsed" as const), pick }),
  weighted(1, { do: fc.constant("promote" as const), pick }),
  weighted(2, {
    do: fc.constant("expire" as const),
    pick,
    deadline: fc.boolean(),
  }),
  weighted(2, {
    do: fc.constant("sweep" as const),
    name: fc.constantFrom(...SWEEPS),
  }),
  weighted(2, {
    do: fc.constant("register" as const),
    worker,
    lanes: fc.subarray([0, 1], { minLength: 1 }),
    capabilities,
  }),
  weighted(1, {
    do: fc.constant("markDead" as const),
    worker,
    expireLeases: fc.boolean(),
  }),
);
export type Command = typeof commands extends fc.Arbitrary<infer T> ? T : never;

function weighted<T extends { do: fc.Arbitrary<unknown> }>(
  weight: number,
  fields: T,
) {
  type Fields = {
    [K in keyof T]: T[K] extends fc.Arbitrary<infer V> ? V : never;
  };
  return { weight, arbitrary: fc.record(fields) as fc.Arbitrary<Fields> };
}
