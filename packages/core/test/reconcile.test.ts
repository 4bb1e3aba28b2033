import {
  endedByUs,
  parkedByUs,
  retryScheduledByUs,
  type ExecutionNotActiveDetail,
} from "@flowfabric/core";
import { expect, test } from "vitest";

const own = { leaseEpoch: 3, attemptId: "attempt-a" };
const ended: ExecutionNotActiveDetail = {
  terminalOutcome: "success",
  leaseEpoch: 3,
  lifecyclePhase: "terminal",
  attemptId: "attempt-a",
};
const waiting: ExecutionNotActiveDetail = {
  terminalOutcome: "none",
  leaseEpoch: 3,
  lifecyclePhase: "runnable",
  attemptId: "",
};

test("one's own end is the wanted outcome under the same lease and attempt", () => {
  expect(endedByUs(ended, own, "success")).toBe(true);
  expect(endedByUs(ended, own, "failed")).toBe(false);
  expect(endedByUs(ended, { ...own, leaseEpoch: 2 }, "success")).toBe(false);
  expect(endedByUs(ended, { ...own, attemptId: "b" }, "success")).toBe(false);
  expect(endedByUs(waiting, own, "success")).toBe(false);
});

test("one's own retry waits under the same epoch with its attempt id gone", () => {
  const state = "pending_retry_attempt";
  expect(retryScheduledByUs(waiting, own, state)).toBe(true);
  expect(retryScheduledByUs(waiting, own, "pending_replay_attempt")).toBe(
    false,
  );
  expect(
    retryScheduledByUs({ ...waiting, attemptId: "attempt-a" }, own, state),
  ).toBe(false);
  expect(retryScheduledByUs({ ...waiting, leaseEpoch: 4 }, own, state)).toBe(
    false,
  );
  expect(retryScheduledByUs(ended, own, state)).toBe(false);
});

test("one's own hand-back waits under the same epoch with the same attempt", () => {
  expect(parkedByUs({ ...waiting, attemptId: "attempt-a" }, own)).toBe(true);
  expect(parkedByUs(waiting, own)).toBe(false);
  expect(parkedByUs(ended, own)).toBe(false);
});
