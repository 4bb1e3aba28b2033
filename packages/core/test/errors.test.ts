import {
  EngineError,
  engineError,
  ERROR_TABLE,
  invalidInput,
  isEngineError,
  isRefusal,
  refuse,
  stopsRenewal,
  type ErrorCode,
} from "@flowfabric/core";
import { describe, expect, test } from "vitest";

describe("engine errors", () => {
  test("carry kind, code, detail and cause, and say what to do", () => {
    const cause = new Error("socket closed");
    const error = new EngineError(
      "payload_too_large",
      { maxBytes: 10, actualBytes: 11 },
      { cause, context: "inputPayload" },
    );
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({
      name: "EngineError",
      kind: "Validation",
      code: "payload_too_large",
      detail: { maxBytes: 10, actualBytes: 11 },
      context: "inputPayload",
      cause,
    });
    expect(error.message).toContain("inputPayload: payload_too_large: ");
    expect(error.message).toContain("maxBytes=10, actualBytes=11");
  });

  test("are recognised by their brand, across two copies of the package", () => {
    const foreign = { brand: "flowfabric.EngineError", code: "stale_lease" };
    expect(isEngineError(foreign)).toBe(true);
    expect(isEngineError(foreign, "stale_lease")).toBe(true);
    expect(isEngineError(foreign, "lease_expired")).toBe(false);
    for (const other of [undefined, null, "stale_lease", new Error("x"), {}])
      expect(isEngineError(other)).toBe(false);
  });

  test("narrow their detail by code", () => {
    const error: unknown = engineError("max_replays_exhausted", { limit: 3 });
    if (!isEngineError(error, "max_replays_exhausted")) throw error;
    expect(error.detail.limit).toBe(3);
    expect(invalidInput("laneId", "empty").detail).toEqual({
      field: "laneId",
      reason: "empty",
    });
  });

  test("end a renewal for good exactly where the lease is lost", () => {
    const stopping = Object.keys(ERROR_TABLE).filter((code) =>
      stopsRenewal(engineError(code as "stale_lease", {})),
    );
    expect(stopping.sort()).toEqual([
      "corruption",
      "execution_not_active",
      "execution_not_found",
      "handle_from_other_backend",
      "lease_conflict",
      "lease_expired",
      "lease_revoked",
      "stale_lease",
      "stale_owner_cannot_append",
    ]);
    expect(stopsRenewal(new Error("x"))).toBe(false);
  });

  test("of transport may be retried where the request can have got through", () => {
    const retryable = (backendKind: "timeout" | "auth") =>
      engineError("transport", { backend: "b", backendKind, message: "m" })
        .retryable;
    expect(retryable("timeout")).toBe(true);
    expect(retryable("auth")).toBe(false);
    expect(engineError("unavailable", { op: "shutdown" }).retryable).toBe(true);
    expect(engineError("unavailable", { op: "transaction" }).retryable).toBe(
      false,
    );
    expect(engineError("retry_exhausted", { attempts: 3 }).retryable).toBe(
      true,
    );
  });

  test("have snake_case codes, and say something each", () => {
    for (const [code, row] of Object.entries(ERROR_TABLE)) {
      expect(code).toMatch(/^[a-z]+(_[a-z]+)*$/);
      expect(row.says.length, code).toBeGreaterThan(20);
    }
  });

  test("are values inside a unit, and told apart from answers there", () => {
    const refusal = refuse("execution_not_terminal", {});
    expect(isRefusal(refusal)).toBe(true);
    expect(refusal.refused.code satisfies ErrorCode).toBe(
      "execution_not_terminal",
    );
    for (const answer of [undefined, null, {}, { kind: "completed" }])
      expect(isRefusal(answer)).toBe(false);
  });
});
