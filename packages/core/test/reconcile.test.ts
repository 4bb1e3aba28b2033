import {
  endedByUs,
  parkedByUs,
  retryScheduledByUs,
  type AttemptState,
  type ExecutionNotActiveDetail,
  type OwnIdentity,
} from "@flowfabric/core";
import { expect, test } from "vitest";

import { named, readVectors } from "./vectors.js";

interface Repeat {
  readonly name: string;
  readonly detail: ExecutionNotActiveDetail;
  readonly own: OwnIdentity;
  readonly ours: boolean;
}

const vectors = readVectors<{
  ended: (Repeat & { readonly outcome: "success" | "failed" | "cancelled" })[];
  retryScheduled: (Repeat & { readonly attemptState: AttemptState })[];
  parked: Repeat[];
}>("reconcile");

test.each(named(vectors.ended))(
  "one's own end: %s",
  (_name, { detail, own, outcome, ours }) => {
    expect(endedByUs(detail, own, outcome)).toBe(ours);
  },
);

test.each(named(vectors.retryScheduled))(
  "one's own retry: %s",
  (_name, { detail, own, attemptState, ours }) => {
    expect(retryScheduledByUs(detail, own, attemptState)).toBe(ours);
  },
);

test.each(named(vectors.parked))(
  "one's own hand-back: %s",
  (_name, { detail, own, ours }) => {
    expect(parkedByUs(detail, own)).toBe(ours);
  },
);
