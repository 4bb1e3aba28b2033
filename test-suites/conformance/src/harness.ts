/**
 * What a backend's author supplies, and how the suite turns it into tests. A group of the suite is a function of a
 * harness; where its cases go is up to a registrar, so that the suite can also be run by a program (that is how it
 * tests itself).
 */
import type { EngineBackend } from "@flowfabric/core";
import { describe, test } from "vitest";

import { guarded, NotOffered } from "./support.js";

export interface OpenOptions {
  /** As the backend's own option of this name; default 1 MiB. */
  readonly maxPayloadBytes?: number;
  /** How long feeds keep events, in milliseconds; default 24 h. */
  readonly feedRetentionMs?: number;
}

/** A transaction of the caller's own on the store of a backend, outside of it. */
export interface CallerTransaction {
  /** As `createExecutionInTransaction` takes it. */
  readonly transaction: unknown;
  commit(): Promise<void>;
  rollback(): Promise<void>;
}

/** The only thing a new backend has to write to be tested. */
export interface BackendHarness {
  /** Stands in front of the names of all tests. */
  readonly name: string;
  /** An empty store, or an empty namespace of a shared one, that no other test sees. */
  open(options?: OpenOptions): Promise<EngineBackend>;
  /** A second connection to the store of `backend`, as another process would have. */
  reopen?(backend: EngineBackend): Promise<EngineBackend>;
  /**
   * Moves the clock of the store, for all connections to it. Negative steps it back, as a correction of the machine's
   * clock would.
   */
  passTime(backend: EngineBackend, ms: number): Promise<void>;
  /** Needed where `supports.callerTransaction` is on. */
  beginTransaction?(backend: EngineBackend): Promise<CallerTransaction>;
}

/** Where cases are put. */
export interface Registrar {
  describe(name: string, body: () => void): void;
  test(name: string, body: () => Promise<void>, timeoutMs?: number): void;
}

const vitestRegistrar: Registrar = {
  describe: (name, body) => void describe(name, body),
  test: (name, body, timeoutMs) => test(name, body, timeoutMs),
};

/** One test's own store. Everything opened here is closed when the test ends. */
export interface Bench {
  readonly backend: EngineBackend;
  passTime(ms: number): Promise<void>;
  /** Another connection to the same store; the same one where the store has no second. */
  reopen(): Promise<EngineBackend>;
  /** As the harness offers it, on this store. */
  beginTransaction(): Promise<CallerTransaction>;
  /** Another store, for cases that need several; whoever asks closes it. */
  fresh(): Promise<Bench & { close(): Promise<void> }>;
}

interface CaseOptions {
  readonly open?: OpenOptions;
  readonly timeoutMs?: number;
}

type CaseBody = (bench: Bench) => Promise<void>;

/** Defines one case of a group. */
export type DefineCase = (
  name: string,
  ...optionsAndBody: [CaseBody] | [CaseOptions, CaseBody]
) => void;

/** Registers its cases for one backend. */
export type Group = (harness: BackendHarness, registrar?: Registrar) => void;

export function group(name: string, define: (test: DefineCase) => void): Group {
  return (harness, registrar = vitestRegistrar) => {
    registrar.describe(`${harness.name}: ${name}`, () => {
      define((caseName, ...rest) => {
        const [options, body]: [CaseOptions, CaseBody] =
          rest.length === 1 ? [{}, rest[0]] : rest;
        registrar.test(
          caseName,
          () => runCase(harness, options, body),
          options.timeoutMs,
        );
      });
    });
  };
}

async function runCase(
  harness: BackendHarness,
  options: CaseOptions,
  body: CaseBody,
): Promise<void> {
  const bench = await openBench(harness, options.open);
  try {
    await body(bench);
  } catch (error) {
    // With the answer that an operation is not offered, all behind it is void.
    if (!(error instanceof NotOffered) && !bench.wasTold()) throw error;
  } finally {
    await bench.close();
  }
}

interface OpenedBench extends Bench {
  wasTold(): boolean;
  close(): Promise<void>;
}

async function openBench(
  harness: BackendHarness,
  options?: OpenOptions,
): Promise<OpenedBench> {
  const own = await harness.open(options);
  const opened = [own];
  const guards = [guarded(own)];
  const benches: OpenedBench[] = [];
  return {
    backend: guards[0]!.backend,
    passTime: (ms) => harness.passTime(own, ms),
    async reopen() {
      if (harness.reopen === undefined) return guards[0]!.backend;
      const second = await harness.reopen(own);
      opened.push(second);
      const guard = guarded(second);
      guards.push(guard);
      return guard.backend;
    },
    async beginTransaction() {
      if (harness.beginTransaction !== undefined)
        return harness.beginTransaction(own);
      if (own.capabilities().supports.callerTransaction)
        throw new Error(
          "the harness must offer beginTransaction, for the backend joins transactions",
        );
      // The submission that follows is refused anyway.
      const nothing = async () => undefined;
      return { transaction: {}, commit: nothing, rollback: nothing };
    },
    async fresh() {
      const bench = await openBench(harness, options);
      benches.push(bench);
      return bench;
    },
    wasTold: () =>
      guards.some((guard) => guard.wasTold()) ||
      benches.some((bench) => bench.wasTold()),
    async close() {
      // The first connection owns the store, so it goes last.
      for (const one of opened.reverse()) await one.close();
    },
  };
}
