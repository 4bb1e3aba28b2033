/**
 * When a suspension may go on: a tree over the signals of its waitpoints. Its leaves are numbered in depth-first order, and
 * all that is remembered of the signals so far is one small value per leaf. Source: specification 05 §6.
 */
import {
  CONDITION_COUNT_MAX,
  CONDITION_DEPTH_MAX,
  CONDITION_KEYS_MAX,
  CONDITION_NODES_MAX,
} from "../limits.js";

export type SignalMatcher =
  | { readonly kind: "byName"; readonly name: string }
  | { readonly kind: "wildcard" };

export const COUNT_KINDS = [
  "distinctWaitpoints",
  "distinctSignals",
  "distinctSources",
] as const;
export type CountKind = (typeof COUNT_KINDS)[number];

interface Single {
  readonly kind: "single";
  readonly waitpointKey: string;
  readonly matcher: SignalMatcher;
}
interface Count {
  readonly kind: "count";
  readonly n: number;
  readonly countKind: CountKind;
  /** Absent: any signal. */
  readonly matcher?: SignalMatcher | undefined;
  /** Keys; signals on others do not count. */
  readonly waitpoints: readonly string[];
}
export type ResumeCondition =
  | Single
  | { readonly kind: "operatorOnly" }
  | { readonly kind: "timeoutOnly" }
  | {
      readonly kind: "composite";
      readonly body:
        | {
            readonly kind: "allOf";
            readonly members: readonly ResumeCondition[];
          }
        | Count;
    };

/** What a delivered signal did; the first two advance a condition. */
export type SignalEffect =
  | "resume_condition_satisfied"
  | "appended_to_waitpoint"
  | "appended_to_waitpoint_duplicate"
  | "buffered_for_pending_waitpoint"
  | "signal_ignored_not_in_condition"
  | "signal_ignored_matcher_failed"
  | "no_op";

/**
 * What one leaf remembers: how many distinct satisfiers it has; of `distinctWaitpoints` a `0` or `1` per key, in the order of
 * the node.
 */
export type LeafProgress = number | string;

type Leaf = Single | Count;

/** All leaves, in depth-first order; their places are their numbers. */
function leavesOf(condition: ResumeCondition): Leaf[] {
  if (condition.kind === "single") return [condition];
  if (condition.kind !== "composite") return [];
  return condition.body.kind === "count"
    ? [condition.body]
    : condition.body.members.flatMap(leavesOf);
}

export function initialProgress(condition: ResumeCondition): LeafProgress[] {
  return leavesOf(condition).map((leaf) =>
    leaf.kind === "count" && leaf.countKind === "distinctWaitpoints"
      ? "0".repeat(leaf.waitpoints.length)
      : 0,
  );
}

export interface ConditionSignal {
  /** Of the waitpoint it was sent to. */
  readonly waitpointKey: string;
  readonly signalName: string;
}

/** Which leaves a signal could count for. */
export interface LeafMatch {
  /** Some leaf names the waitpoint's key. */
  readonly named: boolean;
  readonly leaves: readonly number[];
  /** Those of them that need to know whether its source has counted before. */
  readonly sourceLeaves: readonly number[];
}

export function matchLeaves(
  condition: ResumeCondition,
  signal: ConditionSignal,
): LeafMatch {
  const leaves = leavesOf(condition);
  const named = leaves.flatMap((leaf, index) =>
    keysOf(leaf).includes(signal.waitpointKey) ? [index] : [],
  );
  const matching = named.filter((index) =>
    accepts(leaves[index]!.matcher, signal.signalName),
  );
  return {
    named: named.length > 0,
    leaves: matching,
    sourceLeaves: matching.filter((index) => {
      const leaf = leaves[index]!;
      return leaf.kind === "count" && leaf.countKind === "distinctSources";
    }),
  };
}

function keysOf(leaf: Leaf): readonly string[] {
  return leaf.kind === "single" ? [leaf.waitpointKey] : leaf.waitpoints;
}

function accepts(matcher: SignalMatcher | undefined, name: string): boolean {
  return matcher?.kind !== "byName" || matcher.name === name;
}

export interface Advance {
  readonly effect: SignalEffect;
  readonly progress: readonly LeafProgress[];
  /** Leaves that grew; none: the signal contributed nothing. */
  readonly counted: readonly number[];
}

/**
 * Counts one signal that nobody has seen before, for every leaf that it matches.
 * @param knownSourceLeaves leaves that have counted a signal of its source already
 */
export function advance(
  condition: ResumeCondition,
  progress: readonly LeafProgress[],
  match: LeafMatch,
  waitpointKey: string,
  knownSourceLeaves: readonly number[],
): Advance {
  const leaves = leavesOf(condition);
  const next = [...progress];
  const counted: number[] = [];
  for (const index of match.leaves) {
    if (knownSourceLeaves.includes(index)) continue;
    const grown = grow(leaves[index]!, next[index]!, waitpointKey);
    if (grown === undefined) continue;
    next[index] = grown;
    counted.push(index);
  }
  return {
    effect: effectOf(condition, match, counted.length > 0, next),
    progress: next,
    counted,
  };
}

/** One more satisfier, or nothing where this one is none. */
function grow(
  leaf: Leaf,
  before: LeafProgress,
  waitpointKey: string,
): LeafProgress | undefined {
  if (leaf.kind === "single") return before === 0 ? 1 : undefined;
  if (typeof before === "number") return before + 1;
  const at = leaf.waitpoints.indexOf(waitpointKey);
  return before[at] === "1"
    ? undefined
    : `${before.slice(0, at)}1${before.slice(at + 1)}`;
}

function effectOf(
  condition: ResumeCondition,
  match: LeafMatch,
  grew: boolean,
  progress: readonly LeafProgress[],
): SignalEffect {
  if (match.leaves.length === 0) {
    if (condition.kind !== "composite") return "no_op";
    return match.named
      ? "signal_ignored_matcher_failed"
      : "signal_ignored_not_in_condition";
  }
  if (!grew) return "appended_to_waitpoint_duplicate";
  return isSatisfied(condition, progress)
    ? "resume_condition_satisfied"
    : "appended_to_waitpoint";
}

/** A signal that came before there was a condition. */
export interface BufferedSignal {
  readonly signalName: string;
  readonly sourceType: string;
  readonly sourceIdentity: string;
}

export interface BufferedEvaluation {
  readonly progress: readonly LeafProgress[];
  /** One per signal, in their order, up to the one that satisfies; those behind it are as if they had come too late. */
  readonly results: readonly Pick<Advance, "effect" | "counted">[];
  /** Which leaves of `distinctSources` have counted which source. */
  readonly sources: readonly (Omit<BufferedSignal, "signalName"> & {
    readonly leaf: number;
  })[];
  readonly satisfied: boolean;
}

/** Counts what one waitpoint has got before it became part of a suspension, as if it came now. */
export function evaluateBuffered(
  condition: ResumeCondition,
  waitpointKey: string,
  signals: readonly BufferedSignal[],
): BufferedEvaluation {
  let progress: readonly LeafProgress[] = initialProgress(condition);
  const results: Pick<Advance, "effect" | "counted">[] = [];
  const sources = new Map<string, BufferedEvaluation["sources"][number]>();
  for (const { signalName, sourceType, sourceIdentity } of signals) {
    const match = matchLeaves(condition, { waitpointKey, signalName });
    const nameOf = (leaf: number) =>
      JSON.stringify([leaf, sourceType, sourceIdentity]);
    const known = match.sourceLeaves.filter((leaf) =>
      sources.has(nameOf(leaf)),
    );
    const next = advance(condition, progress, match, waitpointKey, known);
    progress = next.progress;
    results.push({ effect: next.effect, counted: next.counted });
    for (const leaf of next.counted)
      if (match.sourceLeaves.includes(leaf))
        sources.set(nameOf(leaf), { leaf, sourceType, sourceIdentity });
    if (next.effect === "resume_condition_satisfied") break;
  }
  return {
    progress,
    results,
    sources: [...sources.values()],
    satisfied: results.at(-1)?.effect === "resume_condition_satisfied",
  };
}

/** The value of the tree, from its leaves up; nothing of it is cached. */
export function isSatisfied(
  condition: ResumeCondition,
  progress: readonly LeafProgress[],
): boolean {
  let leaf = 0;
  const valueOf = (node: ResumeCondition): boolean => {
    if (node.kind === "single") return progress[leaf++] === 1;
    if (node.kind !== "composite") return false;
    if (node.body.kind === "count")
      return countOf(progress[leaf++]!) >= node.body.n;
    // Every member is gone through, for its leaves have numbers too.
    const values = node.body.members.map(valueOf);
    return values.every(Boolean);
  };
  return valueOf(condition);
}

function countOf(progress: LeafProgress): number {
  return typeof progress === "number"
    ? progress
    : [...progress].filter((digit) => digit === "1").length;
}

/** Which names could count on this key; none: any could. Two forms that no name satisfies have markers. */
export function requiredSignalNames(
  condition: ResumeCondition,
  waitpointKey: string,
): string[] {
  if (condition.kind === "operatorOnly") return ["__operator_only__"];
  if (condition.kind === "timeoutOnly") return ["__timeout_only__"];
  const matchers = leavesOf(condition)
    .filter((leaf) => keysOf(leaf).includes(waitpointKey))
    .map((leaf) => leaf.matcher);
  const names = matchers.flatMap((matcher) =>
    matcher?.kind === "byName" ? [matcher.name] : [],
  );
  return names.length < matchers.length ? [] : [...new Set(names)];
}

/** Keys that the condition names, in depth-first order, each once. */
export function conditionKeys(condition: ResumeCondition): string[] {
  return [...new Set(leavesOf(condition).flatMap(keysOf))];
}

/** Names it asks for, in depth-first order. */
export function conditionNames(condition: ResumeCondition): string[] {
  return leavesOf(condition).flatMap(({ matcher }) =>
    matcher?.kind === "byName" ? [matcher.name] : [],
  );
}

/** A condition with a key for every one of these waitpoints, satisfied once each has a signal. */
export function allOfWaitpoints(keys: readonly string[]): ResumeCondition {
  return {
    kind: "composite",
    body: {
      kind: "allOf",
      members: keys.map((waitpointKey) => ({
        kind: "single",
        waitpointKey,
        matcher: { kind: "wildcard" },
      })),
    },
  };
}

/** What is wrong with the shape of a tree, depth first; nothing where it is right. Source: specification 05 §6.4. */
export function conditionFault(condition: ResumeCondition): string | undefined {
  let nodes = 0;
  const look = (
    node: ResumeCondition,
    path: string,
    depth: number,
  ): string | undefined => {
    nodes++;
    if (node.kind !== "composite") return undefined;
    const at = `at path ${path === "" ? "<root>" : path}`;
    if (depth > CONDITION_DEPTH_MAX)
      return `condition_depth_exceeded: depth ${depth} exceeds cap ${CONDITION_DEPTH_MAX} ${at}`;
    if (node.body.kind === "count") return countFault(node.body, at);
    if (node.body.members.length === 0) return `allof_empty_members ${at}`;
    for (const [index, member] of node.body.members.entries()) {
      const below = `${path === "" ? "" : `${path}.`}members[${index}]`;
      const fault = look(member, below, depth + 1);
      if (fault !== undefined) return fault;
    }
    return undefined;
  };
  const fault = look(condition, "", 1);
  if (fault !== undefined) return fault;
  if (nodes > CONDITION_NODES_MAX)
    return `condition_size_exceeded: ${nodes} nodes, at most ${CONDITION_NODES_MAX}`;
  const keys = conditionKeys(condition).length;
  return keys > CONDITION_KEYS_MAX
    ? `condition_size_exceeded: ${keys} keys, at most ${CONDITION_KEYS_MAX}`
    : undefined;
}

function countFault(
  { n, countKind, waitpoints }: Count,
  at: string,
): string | undefined {
  if (n < 1) return `count_n_zero ${at}`;
  if (n > CONDITION_COUNT_MAX)
    return `count_n_exceeded: n=${n}, at most ${CONDITION_COUNT_MAX} ${at}`;
  if (waitpoints.length === 0) return `count_waitpoints_empty ${at}`;
  if (new Set(waitpoints).size < waitpoints.length)
    return `count_waitpoints_duplicate ${at}`;
  return countKind === "distinctWaitpoints" && n > waitpoints.length
    ? `count_exceeds_waitpoint_set: n=${n} > waitpoints.len()=${waitpoints.length} ${at}`
    : undefined;
}
