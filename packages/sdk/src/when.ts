/** Conditions for suspensions, in the words of whoever writes a handler. */
import {
  allOfWaitpoints,
  type CountKind,
  type ResumeCondition,
  type SignalMatcher,
} from "@flowfabric/core";

/**
 * Builds the condition of a suspension. Waitpoints are named by keys of one's own; each distinct key gets a waitpoint with
 * a token of its own.
 *
 * @example
 * when.count({ n: 2, countKind: "distinctSources", waitpoints: ["review"], name: "approved" }); // two people
 * when.count({ n: 1, countKind: "distinctWaitpoints", waitpoints: ["paid", "waived"] }); // either of them
 */
export const when = {
  /** A signal on this waitpoint; with a name, only one of that name. */
  signal: (waitpointKey: string, name?: string): ResumeCondition => ({
    kind: "single",
    waitpointKey,
    matcher: matcherOf(name),
  }),

  /** All of them, in whatever order they come true. */
  all: (...members: readonly ResumeCondition[]): ResumeCondition => ({
    kind: "composite",
    body: { kind: "allOf", members },
  }),

  /**
   * At least `n` different ones: waitpoints, signals, or sources (pairs of type and identity), of those on the given
   * waitpoints and, where a name is given, of that name.
   */
  count: ({
    name,
    ...count
  }: {
    readonly n: number;
    readonly countKind: CountKind;
    readonly waitpoints: readonly string[];
    readonly name?: string | undefined;
  }): ResumeCondition => ({
    kind: "composite",
    body: { kind: "count", ...count, matcher: matcherOf(name) },
  }),

  /** Any signal on each of these waitpoints. */
  allOfWaitpoints,

  /** No signal: an operator, or the timeout where there is one. */
  operator: (): ResumeCondition => ({ kind: "operatorOnly" }),

  /** Nothing but the timeout; or an operator. */
  deadline: (): ResumeCondition => ({ kind: "timeoutOnly" }),
} as const;

function matcherOf(name: string | undefined): SignalMatcher {
  return name === undefined ? { kind: "wildcard" } : { kind: "byName", name };
}
