/** A real store per test, faults on the way to it, and a logger that remembers. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import {
  engineError,
  type EngineBackend,
  type Supports,
} from "@flowfabric/core";
import { sqliteBackend } from "@flowfabric/sqlite";
import { onTestFinished } from "vitest";

import type { Logger, LogFields } from "../src/logger.js";

export interface TestStore {
  readonly backend: EngineBackend;
  readonly path: string;
  /** Moves the store's clock on. */
  passTime(ms: number): void;
  /** The same file, opened again as another process would. */
  reopen(options?: { push?: boolean }): Promise<EngineBackend>;
}

/** An empty store in a folder of its own, gone with the test. */
export async function openStore(
  options: { push?: boolean } = {},
): Promise<TestStore> {
  const folder = mkdtempSync(join(tmpdir(), "flowfabric-sdk-"));
  const path = join(folder, "store.db");
  const clock = { offsetMs: 0 };
  const opened: EngineBackend[] = [];
  const open = async (more: { push?: boolean } = {}) => {
    const backend = await sqliteBackend({
      path,
      durability: "normal",
      clock,
      ...options,
      ...more,
    });
    opened.push(backend);
    return backend;
  };
  onTestFinished(async () => {
    await Promise.all(opened.map((backend) => backend.close()));
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    backend: await open(),
    path,
    passTime: (ms) => {
      clock.offsetMs += ms;
    },
    reopen: open,
  };
}

/** The same store, with other flags. */
export function withSupport(
  backend: EngineBackend,
  flags: Partial<Supports>,
): EngineBackend {
  const { identity, supports } = backend.capabilities();
  const capabilities = () => ({
    identity,
    supports: { ...supports, ...flags },
  });
  return new Proxy(backend, {
    get: (target, name, receiver) =>
      name === "capabilities"
        ? capabilities
        : (Reflect.get(target, name, receiver) as unknown),
  });
}

type Operation = keyof EngineBackend & string;

/** How many calls a fault hits; `Infinity` until {@link Faults.heal}. */
interface Fault {
  readonly kind: "lost_reply" | "lost_call" | "hang" | "refuse";
  left: number;
  readonly error?: Error | undefined;
}

export interface Faults {
  readonly backend: EngineBackend;
  /** The call is carried out, its reply never comes: a transport error. */
  loseReplies(operation: Operation, times?: number): void;
  /** The call never arrives: a transport error. */
  loseCalls(operation: Operation, times?: number): void;
  /** The call neither arrives nor returns. */
  hang(operation: Operation, times?: number): void;
  /** The call is answered with this error. */
  refuse(operation: Operation, error: Error, times?: number): void;
  heal(operation: Operation): void;
  /** Arguments of every call so far. */
  callsOf(operation: Operation): unknown[];
  calls(): string[];
  clear(): void;
}

/** Stands between the SDK and a real store. */
export function withFaults(real: EngineBackend): Faults {
  const faults = new Map<string, Fault>();
  const log: { readonly name: string; readonly input: unknown }[] = [];
  const set = (
    operation: string,
    kind: Fault["kind"],
    times = 1,
    error?: Error,
  ) => void faults.set(operation, { kind, left: times, error });
  const backend = new Proxy(real, {
    get(target, name, receiver) {
      const member: unknown = Reflect.get(target, name, receiver);
      if (typeof member !== "function" || typeof name !== "string")
        return member;
      const operation = member as (input?: unknown) => unknown;
      return (input?: unknown) => {
        log.push({ name, input });
        const fault = faults.get(name);
        if (fault === undefined || fault.left === 0) return operation(input);
        fault.left--;
        // Feeds are not promised: they fail at the call.
        if (name === "watchWorker") throw lost();
        return misbehave(fault, () => operation(input) as Promise<unknown>);
      };
    },
  });
  return {
    backend,
    loseReplies: (operation, times) => set(operation, "lost_reply", times),
    loseCalls: (operation, times) => set(operation, "lost_call", times),
    hang: (operation, times) => set(operation, "hang", times),
    refuse: (operation, error, times) => set(operation, "refuse", times, error),
    heal: (operation) => void faults.delete(operation),
    callsOf: (operation) =>
      log.filter(({ name }) => name === operation).map(({ input }) => input),
    calls: () => log.map(({ name }) => name),
    clear: () => void log.splice(0),
  };
}

async function misbehave(
  fault: Fault,
  call: () => Promise<unknown>,
): Promise<unknown> {
  switch (fault.kind) {
    case "lost_reply":
      await call();
      throw lost();
    case "lost_call":
      throw lost();
    case "refuse":
      throw fault.error ?? lost();
    case "hang":
      return new Promise(() => {});
  }
}

/** What a driver reports when the connection breaks, as a backend passes it on: wrapped in its context. */
function lost(): Error {
  return new Error("while calling the store", {
    cause: engineError("transport", {
      backend: "sqlite",
      backendKind: "transport",
      message: "connection lost",
    }),
  });
}

export interface RecordedLog extends Logger {
  readonly lines: {
    readonly level: string;
    readonly message: string;
    readonly fields?: LogFields | undefined;
  }[];
  /** Messages of warnings. */
  warnings(): string[];
}

export function recordingLogger(): RecordedLog {
  const lines: RecordedLog["lines"] = [];
  const at =
    (level: string) =>
    (message: string, fields?: LogFields): void =>
      void lines.push({ level, message, fields });
  return {
    lines,
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    warnings: () =>
      lines
        .filter(({ level }) => level === "warn")
        .map(({ message }) => message),
  };
}

/** Resolves once `condition` holds; looks every few milliseconds. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what = "the condition",
): Promise<void> {
  const deadline = performance.now() + 15_000;
  while (!(await condition())) {
    if (performance.now() > deadline)
      throw new Error(`timed out waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));
