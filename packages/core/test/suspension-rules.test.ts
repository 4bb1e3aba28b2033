/** Waitpoints, signals and the conditions over them: the cases that Lua answers too. */
import {
  advance,
  blockingReasonOf,
  conditionFault,
  effectiveResumeDelayMs,
  effectiveSignalLimit,
  initialProgress,
  isRefusal,
  isSatisfied,
  judgeSignal,
  listKids,
  matchLeaves,
  mintToken,
  observableSignals,
  parseToken,
  pendingKeyFault,
  planRotation,
  planSeed,
  redactToken,
  requiredSignalNames,
  suspendFault,
  suspendReplayMs,
  timeoutEffect,
  validateToken,
  WaitpointToken,
  waitpointStateAt,
  type BindingFacts,
  type Keystore,
  type LeafProgress,
  type ObservedSuspension,
  type ResumeCondition,
  type SignalTarget,
  type SuspensionReason,
  type TimeoutBehavior,
  type TokenSubject,
  type WaitpointState,
} from "@flowfabric/core";
import { inspect } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { named, present, readVectors } from "./vectors.js";

interface StoredKeystore {
  readonly currentKid: string | null;
  readonly secrets: readonly {
    kid: string;
    secretHex: string;
    expiresAtMs: number | null;
  }[];
}

function keystoreOf(stored: StoredKeystore): Keystore {
  return {
    ...present({ currentKid: stored.currentKid }),
    secrets: stored.secrets.map(
      (secret) => present(secret) as Keystore["secrets"][number],
    ),
  };
}

/** A plan, or the refusal in the words of the vectors. */
function planned(plan: object): object {
  if (!isRefusal(plan)) return plan;
  const { code, detail } = plan.refused;
  return {
    kind: "refused",
    code,
    ...("kid" in detail ? { kid: detail.kid } : {}),
  };
}

describe("tokens", () => {
  const vectors = readVectors<{
    mints: {
      name: string;
      secretHex: string;
      kid: string;
      subject: TokenSubject;
      token?: string;
      refused?: string;
    }[];
    parses: {
      name: string;
      text: string;
      kid: string | null;
      digest: string | null;
      redacted: string;
    }[];
    validations: {
      name: string;
      keystore: StoredKeystore;
      token: string;
      claimed: Pick<TokenSubject, "executionId" | "waitpointId">;
      found: Pick<TokenSubject, "createdAtMs" | "waitpointKey"> | null;
      nowMs: number;
      refused: string | null;
    }[];
  }>("tokens");

  test.each(named(vectors.mints))("made: %s", (_name, one) => {
    const { kid, secretHex, subject } = one;
    const minted = mintToken(
      { currentKid: kid, secrets: [{ kid, secretHex }] },
      subject,
    );
    if (isRefusal(minted)) expect(minted.refused.code).toBe(one.refused);
    else expect(minted.token.reveal()).toBe(one.token);
  });

  test("none is made without a key", () => {
    const { subject } = vectors.mints[0]!;
    for (const keystore of [
      { secrets: [] },
      { currentKid: "k1", secrets: [] },
    ]) {
      const minted = mintToken(keystore, subject);
      expect(isRefusal(minted) && minted.refused.code).toBe(
        "hmac_secret_not_initialized",
      );
    }
  });

  test.each(named(vectors.parses))("read: %s", (_name, one) => {
    expect(parseToken(one.text) ?? { kid: null, digest: null }).toEqual({
      kid: one.kid,
      digest: one.digest,
    });
    expect(redactToken(one.text)).toBe(one.redacted);
  });

  test.each(named(vectors.validations))("checked: %s", (_name, one) => {
    const refusal = validateToken(
      keystoreOf(one.keystore),
      parseToken(one.token)!,
      one.claimed,
      one.found ?? undefined,
      one.nowMs,
    );
    expect(refusal?.refused.code ?? null).toBe(one.refused);
  });

  test("show themselves to nobody by accident", () => {
    const { token } = vectors.mints[0]!;
    const given = new WaitpointToken(token!);
    const digest = token!.slice(3);
    for (const shown of [
      String(given),
      inspect({ deep: [given] }),
      JSON.stringify({ given }),
      inspect(given, { showHidden: true }),
    ]) {
      expect(shown).toContain("k1:<REDACTED:len=64>");
      expect(shown).not.toContain(digest.slice(0, 8));
    }
    expect(given.reveal()).toBe(token);
  });
});

describe("the keystore", () => {
  const vectors = readVectors<{
    seeds: {
      name: string;
      keystore: StoredKeystore;
      kid: string;
      secretHex: string;
      plan: object;
    }[];
    rotations: {
      name: string;
      keystore: StoredKeystore;
      newKid: string;
      newSecretHex: string;
      graceMs: number;
      nowMs: number;
      plan: object;
    }[];
    lists: {
      name: string;
      keystore: StoredKeystore;
      nowMs: number;
      kids: { currentKid: string | null; verifying: object[] };
    }[];
  }>("keystore");

  test.each(named(vectors.seeds))("first key: %s", (_name, one) => {
    expect(
      planned(planSeed(keystoreOf(one.keystore), one.kid, one.secretHex)),
    ).toEqual(one.plan);
  });

  test.each(named(vectors.rotations))("rotation: %s", (_name, one) => {
    const plan = planRotation(
      keystoreOf(one.keystore),
      one.newKid,
      one.newSecretHex,
      one.graceMs,
      one.nowMs,
    );
    expect(planned(plan)).toEqual(one.plan);
  });

  test.each(named(vectors.lists))("list: %s", (_name, one) => {
    expect(listKids(keystoreOf(one.keystore), one.nowMs)).toEqual(
      present(one.kids),
    );
  });
});

interface Step {
  readonly waitpointKey: string;
  readonly signalName: string;
  readonly source: string | readonly [string, string];
}

/** Signal by signal, with the sources that a store would remember. */
class Evaluation {
  readonly #condition: ResumeCondition;
  readonly #sources = new Set<string>();
  progress: readonly LeafProgress[];

  constructor(condition: ResumeCondition) {
    this.#condition = condition;
    this.progress = initialProgress(condition);
  }

  take({ source, ...signal }: Step) {
    const match = matchLeaves(this.#condition, signal);
    const nameOf = (leaf: number) => JSON.stringify([leaf, source]);
    const known = match.sourceLeaves.filter((leaf) =>
      this.#sources.has(nameOf(leaf)),
    );
    const { effect, counted, progress } = advance(
      this.#condition,
      this.progress,
      match,
      signal.waitpointKey,
      known,
    );
    for (const leaf of counted) this.#sources.add(nameOf(leaf));
    this.progress = progress;
    return { effect, counted, progress };
  }
}

describe("resume conditions", () => {
  const vectors = readVectors<{
    evaluations: {
      name: string;
      condition: ResumeCondition;
      initial: LeafProgress[];
      steps: (Step & {
        effect: string;
        counted: number[];
        progress: LeafProgress[];
      })[];
      requiredSignalNames: Record<string, string[]>;
    }[];
    shapes: {
      name: string;
      condition: ResumeCondition;
      fault: string | null;
    }[];
  }>("conditions");

  test.each(named(vectors.evaluations))("%s", (_name, one) => {
    const evaluation = new Evaluation(one.condition);
    expect(evaluation.progress).toEqual(one.initial);
    for (const { effect, counted, progress, ...step } of one.steps) {
      expect(evaluation.take(step)).toEqual({ effect, counted, progress });
      expect(isSatisfied(one.condition, evaluation.progress)).toBe(
        effect === "resume_condition_satisfied",
      );
    }
    for (const [key, names] of Object.entries(one.requiredSignalNames))
      expect(requiredSignalNames(one.condition, key), key).toEqual(names);
  });

  test.each(named(vectors.shapes))("shape: %s", (_name, one) => {
    expect(conditionFault(one.condition) ?? null).toBe(one.fault);
  });

  test("are worth what the signals are worth, in whatever order they come", () => {
    fc.assert(
      fc.property(
        tree,
        fc.array(step, { maxLength: 20 }),
        (condition, steps) => {
          const pure = valueOf(condition, steps);
          const shuffled = [...steps].reverse();
          for (const order of [steps, shuffled]) {
            const evaluation = new Evaluation(condition);
            for (const one of order) evaluation.take(one);
            expect(isSatisfied(condition, evaluation.progress)).toBe(pure);
          }
        },
      ),
    );
  });
});

const KEYS = ["a", "b", "c"];
const NAMES = ["x", "y"];
const step = fc.record({
  waitpointKey: fc.constantFrom(...KEYS, "other"),
  signalName: fc.constantFrom(...NAMES, "z"),
  source: fc.tuple(
    fc.constantFrom("", "a", "a:b"),
    fc.constantFrom("", "b:c", "c"),
  ),
});
const matcher = fc.oneof(
  fc.constant({ kind: "wildcard" as const }),
  fc.record({
    kind: fc.constant("byName" as const),
    name: fc.constantFrom(...NAMES),
  }),
);
const { tree } = fc.letrec<{ tree: ResumeCondition }>((tie) => ({
  tree: fc.oneof(
    { depthSize: "small", maxDepth: 4 },
    fc.record({
      kind: fc.constant("single" as const),
      waitpointKey: fc.constantFrom(...KEYS),
      matcher,
    }),
    fc.record({
      kind: fc.constant("composite" as const),
      body: fc.record({
        kind: fc.constant("count" as const),
        n: fc.integer({ min: 1, max: 3 }),
        countKind: fc.constantFrom(
          "distinctWaitpoints" as const,
          "distinctSignals" as const,
          "distinctSources" as const,
        ),
        matcher,
        waitpoints: fc.subarray(KEYS, { minLength: 1 }),
      }),
    }),
    fc.constant({ kind: "operatorOnly" as const }),
    fc.record({
      kind: fc.constant("composite" as const),
      body: fc.record({
        kind: fc.constant("allOf" as const),
        members: fc.array(tie("tree"), { minLength: 1, maxLength: 3 }),
      }),
    }),
  ),
}));

/** The value by its definition, from all signals at once. */
function valueOf(
  condition: ResumeCondition,
  signals: readonly Step[],
): boolean {
  if (condition.kind === "operatorOnly" || condition.kind === "timeoutOnly")
    return false;
  if (condition.kind === "composite" && condition.body.kind === "allOf")
    return condition.body.members.every((member) => valueOf(member, signals));
  const leaf =
    condition.kind === "single"
      ? {
          ...condition,
          n: 1,
          countKind: "distinctSignals",
          waitpoints: [condition.waitpointKey],
        }
      : (condition.body as Extract<typeof condition.body, { kind: "count" }>);
  const counting = signals.filter(
    (one) =>
      leaf.waitpoints.includes(one.waitpointKey) &&
      (leaf.matcher?.kind !== "byName" || leaf.matcher.name === one.signalName),
  );
  const satisfiers = counting.map((one, index) =>
    leaf.countKind === "distinctWaitpoints"
      ? one.waitpointKey
      : leaf.countKind === "distinctSources"
        ? JSON.stringify(one.source)
        : index,
  );
  return new Set(satisfiers).size >= leaf.n;
}

describe("suspensions", () => {
  const vectors = readVectors<{
    suspends: {
      name: string;
      waitpoints: BindingFacts[];
      condition: ResumeCondition;
      fault: string | null;
    }[];
    pendings: {
      name: string;
      waitpointKey: string;
      condition: ResumeCondition;
      fault: string | null;
    }[];
    blockingReasons: Record<SuspensionReason, string>;
    replays: { timeoutAtMs: number | null; nowMs: number; ms: number }[];
    delays: { policy: number | null; sender: number | null; ms: number }[];
    timeouts: Record<TimeoutBehavior, object>;
    waitpointStates: {
      state: WaitpointState;
      expiresAtMs: number | null;
      nowMs: number;
      at: WaitpointState;
    }[];
    limits: { policy: number; sender: number | null; limit: number }[];
    judgements: { name: string; target: SignalTarget; judged: string }[];
    observations: {
      name: string;
      suspension: Omit<ObservedSuspension, "trigger"> & {
        trigger: ObservedSuspension["trigger"] | null;
      };
      handle: { attemptIndex: number; suspended: boolean };
      seen: object;
    }[];
  }>("suspension");

  test.each(named(vectors.suspends))("asked for: %s", (_name, one) => {
    expect(suspendFault(one.waitpoints, one.condition) ?? null).toBe(one.fault);
  });
  test.each(named(vectors.pendings))(
    "on a pending waitpoint: %s",
    (_name, one) => {
      expect(pendingKeyFault(one.waitpointKey, one.condition) ?? null).toBe(
        one.fault,
      );
    },
  );
  test.each(Object.entries(vectors.blockingReasons))(
    "%s blocks as %s",
    (reason, blocks) => {
      expect(blockingReasonOf(reason as SuspensionReason)).toBe(blocks);
    },
  );
  test.each(named(vectors.replays))("remembered: %s", (_name, one) => {
    expect(suspendReplayMs(one.timeoutAtMs ?? undefined, one.nowMs)).toBe(
      one.ms,
    );
  });
  test.each(named(vectors.delays))("delayed: %s", (_name, one) => {
    expect(
      effectiveResumeDelayMs(one.policy ?? undefined, one.sender ?? undefined),
    ).toBe(one.ms);
  });
  test.each(Object.entries(vectors.timeouts))(
    "timed out: %s",
    (behavior, effect) => {
      expect(timeoutEffect(behavior as TimeoutBehavior)).toEqual(effect);
    },
  );
  test.each(named(vectors.waitpointStates))("waitpoint: %s", (_name, one) => {
    expect(
      waitpointStateAt(one.state, one.expiresAtMs ?? undefined, one.nowMs),
    ).toBe(one.at);
  });
  test.each(named(vectors.limits))("limit: %s", (_name, one) => {
    expect(effectiveSignalLimit(one.policy, one.sender ?? undefined)).toBe(
      one.limit,
    );
  });
  test.each(named(vectors.judgements))("signal: %s", (_name, one) => {
    const judged = judgeSignal(one.target);
    expect(isRefusal(judged) ? `!${judged.refused.code}` : judged).toBe(
      one.judged,
    );
  });
  test.each(named(vectors.observations))("observed: %s", (_name, one) => {
    const { trigger, ...rest } = one.suspension;
    expect(
      observableSignals({ ...rest, trigger: trigger ?? undefined }, one.handle),
    ).toEqual(one.seen);
  });
});
