import {
  engineError,
  ERROR_TABLE,
  FlowFabricError,
  isEngineError,
  type ErrorCode,
  type TransportKind,
} from "@flowfabric/core";
import { expect, test } from "vitest";

import {
  backendKind,
  ConfigError,
  isRetryable,
  isTransport,
  LeaseLostError,
  PayloadDecodeError,
  TaskCancelledError,
  TaskConsumedError,
  WorkerAtCapacityError,
  WorkerDisposedError,
} from "../src/errors.js";
import { hasLanded } from "../src/landing.js";

const transport = (kind: TransportKind) =>
  engineError("transport", {
    backend: "sqlite",
    backendKind: kind,
    message: "",
  });
const wrapped = (error: unknown, times: number): unknown =>
  times === 0
    ? error
    : new Error("context", { cause: wrapped(error, times - 1) });

test.each(Object.keys(ERROR_TABLE) as ErrorCode[])(
  "%s is retryable exactly where its class says so, bare and wrapped",
  (code) => {
    const error = engineError(code, { op: "x", backendKind: "other" });

    expect(isRetryable(error)).toBe(error.errorClass === "retryable");
    expect(isRetryable(wrapped(error, 3))).toBe(isRetryable(error));
  },
);

test("a transport fault is retryable by its kind", () => {
  const kinds: TransportKind[] = [
    "transport",
    "timeout",
    "cluster",
    "busy_loading",
    "protocol",
    "auth",
    "script_not_loaded",
    "other",
  ];

  expect(kinds.filter((kind) => isRetryable(transport(kind)))).toEqual([
    "transport",
    "timeout",
    "cluster",
    "busy_loading",
  ]);
  for (const depth of [0, 1, 3]) {
    const error = wrapped(transport("cluster"), depth);
    expect(isTransport(error)).toBe(true);
    expect(backendKind(error)).toBe("cluster");
  }
  expect(backendKind(engineError("stale_lease", {}))).toBeUndefined();
  expect(isTransport(new Error("no"))).toBe(false);
});

test("a circle of causes is no endless loop", () => {
  const error = new Error("round");
  error.cause = error;

  expect(isRetryable(error)).toBe(false);
});

test("errors of the SDK have kind, code and detail and are no engine errors", () => {
  const errors = [
    new ConfigError("worker_config", "is empty", "lanes"),
    new WorkerAtCapacityError(),
    new TaskConsumedError("task_consumed", {
      operation: "fail",
      consumedBy: "complete",
    }),
    new TaskCancelledError({ reason: "too slow" }),
    new LeaseLostError({ leaseEpoch: 2, reason: "stale_lease" }),
    new WorkerDisposedError(),
    new PayloadDecodeError("submit", [{ message: "no" }]),
  ];

  expect(
    errors.map(({ name, kind, code }) => `${name} ${kind} ${code}`),
  ).toEqual([
    "ConfigError Config config",
    "WorkerAtCapacityError WorkerAtCapacity worker_at_capacity",
    "TaskConsumedError TaskConsumed task_consumed",
    "TaskCancelledError TaskCancelled task_cancelled",
    "LeaseLostError LeaseLost lease_lost",
    "WorkerDisposedError WorkerDisposed worker_disposed",
    "PayloadDecodeError PayloadDecode payload_decode",
  ]);
  for (const error of errors) {
    expect(error).toBeInstanceOf(FlowFabricError);
    expect(isEngineError(error)).toBe(false);
  }
  expect(errors.filter(isRetryable).map(({ code }) => code)).toEqual([
    "worker_at_capacity",
  ]);
});

test("a config error renders context and field", () => {
  expect(
    new ConfigError("worker_config", "is empty", "worker_id").message,
  ).toBe("config: worker_config.worker_id: is empty");
  expect(new ConfigError("worker_connect", "cannot claim").message).toBe(
    "config: worker_connect: cannot claim",
  );
});

test("a payload error keeps the first five complaints", () => {
  const issues = Array.from({ length: 7 }, (_, index) => ({
    message: `issue ${index}`,
  }));

  const { detail } = new PayloadDecodeError("result", issues);

  expect(detail.issues.map(({ message }) => message)).toEqual([
    "issue 0",
    "issue 1",
    "issue 2",
    "issue 3",
    "issue 4",
  ]);
});

test("an ending has landed where the engine judged the lease, at any depth of wrapping", () => {
  const landed: ErrorCode[] = [
    "execution_not_found",
    "stale_lease",
    "lease_expired",
    "lease_revoked",
    "lease_conflict",
    "execution_not_active",
    "corruption",
    "handle_from_other_backend",
    "invariant_violation",
  ];
  const open: ErrorCode[] = [
    "transport",
    "unavailable",
    "resource_exhausted",
    "timeout",
    "stream_disconnected",
    // Refused before the lease was looked at, or never looked at.
    "invalid_input",
    "payload_too_large",
    "retry_exhausted",
  ];

  for (const code of landed)
    expect([code, hasLanded(engineError(code, {} as never))]).toEqual([
      code,
      true,
    ]);
  for (const code of open)
    expect([code, hasLanded(engineError(code, {} as never))]).toEqual([
      code,
      false,
    ]);
  for (const depth of [1, 3])
    expect(hasLanded(wrapped(transport("protocol"), depth))).toBe(false);
  expect(hasLanded(new Error("aborted by the caller"))).toBe(false);
});
