/** What programs and the test that started them tell each other. */

/** Refusals and answers by name, counted. */
export type Tally = Record<string, Record<string, number>>;

interface Started {
  readonly kind: "started";
  readonly executionId: string;
  readonly attemptIndex: number;
  readonly leaseEpoch: number;
  readonly handleKind: "fresh" | "resumed" | "reclaimed";
  readonly atMs: number;
}

export type Report =
  /** The program runs; next it opens its store. */
  | { readonly kind: "opening" }
  /** The store is open and work can begin. */
  | { readonly kind: "ready" }
  /** A handler began. */
  | Started
  /** The signal of a handler aborted. `refused` is what its next write was answered. */
  | {
      readonly kind: "aborted";
      readonly executionId: string;
      readonly error: string;
      readonly detail: unknown;
      readonly refused: string;
      readonly atMs: number;
    }
  /** A frame of a handler was refused. */
  | {
      readonly kind: "refused";
      readonly executionId: string;
      readonly code: string;
    }
  | {
      readonly kind: "stopped";
      readonly completed: number;
      readonly failed: number;
      readonly abandoned: number;
    }
  | { readonly kind: "claimed"; readonly executionIds: readonly string[] }
  | { readonly kind: "wrote"; readonly answers: readonly WriteAnswer[] }
  /** A batch whose submission was answered. */
  | { readonly kind: "submitted"; readonly batch: number }
  /** A signal that was accepted, and whether it was the one that resumed. */
  | {
      readonly kind: "signalled";
      readonly executionId: string;
      readonly signalId: string;
      readonly resumed: boolean;
    }
  /** An execution whose completion was answered. */
  | { readonly kind: "completed"; readonly executionId: string }
  | {
      readonly kind: "hammered";
      readonly tally: Tally;
      /** What was neither an answer nor a refusal that the contract names. */
      readonly faults: readonly string[];
      readonly told: Told;
    };

/** What somebody was answered, and what is in the store therefore. */
export interface Told {
  readonly signals: {
    readonly executionId: string;
    readonly signalId: string;
    readonly effect: string;
  }[];
  /** On fresh waitpoints, for so many signals. */
  readonly suspensions: {
    readonly executionId: string;
    readonly suspensionId: string;
    readonly needed: number;
  }[];
  readonly frames: {
    readonly executionId: string;
    readonly attemptIndex: number;
    readonly id: string;
    readonly text: string;
    readonly isPatch: boolean;
  }[];
}

export interface WriteAnswer {
  readonly operation: string;
  readonly executionId: string;
  /** `done`, or the code of the refusal. */
  readonly answer: string;
}

export type Command = { readonly kind: "write" };

export type ReportOf<K extends Report["kind"]> = Extract<
  Report,
  { readonly kind: K }
>;

/** One clock for all processes of a machine; a step of the system's clock does not move it. */
export function machineMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
