/**
 * The rules of the library, in a real server, against the cases that they share with core. What is asked is the library as
 * it is loaded anywhere, with one more function behind it (rules.lua).
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { ExecutionPolicy, HOME } from "@flowfabric/core";
import { ATTEMPT_TYPES, executionIdOf, HOLD } from "@flowfabric/core/records";
import { openClient } from "@flowfabric/valkey-testing";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";

import { named, readVectors } from "../../core/test/vectors.js";
import { BODY } from "../src/generated/library.js";
import { refOf, toExecutionRow } from "../src/rows.js";

type Case = Record<string, unknown>;
type Answer = Record<string, unknown>;

const body = `${BODY}\n${readFileSync(join(import.meta.dirname, "rules.lua"), "utf8")}`;
const version = `ff_rules_${createHash("sha256").update(body).digest("hex").slice(0, 12)}`;
const client = openClient(inject("valkeyUrl"));

beforeAll(async () => {
  const text = `#!lua name=${version}\nlocal VERSION = "${version}"\n${body}`;
  await client.call("FUNCTION", "LOAD", "REPLACE", text);
});
afterAll(async () => {
  await client.call("FUNCTION", "DELETE", version);
  client.disconnect();
});

/** `null` stands for absent, and so does no field at all. */
async function ask(rule: string, given: object): Promise<Answer> {
  const args = JSON.stringify(
    given,
    (_key, value: unknown) => value ?? undefined,
  );
  const answer = await client.call("FCALL", `${version}_rule`, 0, rule, args);
  return JSON.parse(answer as string) as Answer;
}

/** An empty list and an empty object are one in Lua: what is a list in `like` is one in the answer. */
function listsIn(answer: object, like: object): Answer {
  const lists = Object.entries(like).filter(([, value]) =>
    Array.isArray(value),
  );
  const known = answer as Answer;
  return {
    ...known,
    ...Object.fromEntries(
      lists.map(([name]) => [name, Object.values(known[name] ?? {})]),
    ),
  };
}

/** As lua/lib/state.lua names it. */
function luaName(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function numbered(names: readonly string[]): Record<string, number> {
  return Object.fromEntries(names.map((name, number) => [name, number]));
}

describe("the fence", () => {
  const vectors = readVectors<{
    triples: (Case & { refused: string | null })[];
    checks: (Case & {
      record: { home: string };
      refused: string | null;
      markLapsed?: true;
      detail?: object;
    })[];
  }>("fence");

  test.each(named(vectors.triples))("triple: %s", async (_name, one) => {
    const { refused } = await ask("triple", one);
    expect(refused ?? null).toBe(one.refused);
  });

  test.each(named(vectors.checks))("%s", async (_name, one) => {
    const record = { ...one.record, home: luaName(one.record.home) };
    const answer = await ask("fence", { ...one, record });
    expect(answer["refused"] ?? null).toBe(one.refused);
    expect(answer["markLapsed"]).toBe(one.markLapsed);
    if (one.detail !== undefined) expect(answer["detail"]).toEqual(one.detail);
  });
});

describe("retries", () => {
  test.each(named(readVectors<(Case & { delayMs: number })[]>("backoff")))(
    "back-off %s",
    async (_name, { delayMs, ...given }) => {
      expect(await ask("backoff", given)).toEqual({ delayMs });
    },
  );

  test.each(
    named(
      readVectors<(Case & { policy: object; startAtMs: number | null })[]>(
        "retry",
      ),
    ),
  )("%s", async (_name, { policy, startAtMs, ...given }) => {
    // What is stored for the server is what core has parsed.
    const { retryPolicy } = ExecutionPolicy.parse(policy);
    const answer = await ask("retry", { ...given, retryPolicy });
    expect(answer["startAtMs"] ?? null).toBe(startAtMs);
  });
});

describe("order", () => {
  const vectors = readVectors<{
    sortKey: (Case & { key: number })[];
    reclaimBackoff: (Case & { delayMs: number })[];
    reclaimCap: (Case & { reached: boolean })[];
  }>("order");

  test.each(named(vectors.sortKey))(
    "sort key %s",
    async (_name, { key, ...given }) => {
      expect(await ask("sort_key", given)).toEqual({ key });
    },
  );
  test.each(named(vectors.reclaimBackoff))(
    "back-off %s",
    async (_name, { delayMs, ...given }) => {
      expect(await ask("reclaim_backoff", given)).toEqual({ delayMs });
    },
  );
  test.each(named(vectors.reclaimCap))(
    "cap %s",
    async (_name, { reached, ...given }) => {
      expect(await ask("reclaim_cap", given)).toEqual({ reached });
    },
  );
});

describe("homes", () => {
  const vectors = readVectors<{
    enterRunnable: (Case & { home: number; score: number; reason: string })[];
    effective: (Case & { effective: number })[];
  }>("home");

  test.each(named(vectors.enterRunnable))(
    "%s",
    async (_name, { home, score, reason, ...given }) => {
      expect(await ask("enter_runnable", given)).toEqual({
        home,
        score,
        reason,
      });
    },
  );
  test.each(named(vectors.effective))(
    "in effect %s",
    async (_name, { effective, ...given }) => {
      expect(await ask("effective", given)).toEqual({ effective });
    },
  );
});

describe("capabilities", () => {
  const vectors = readVectors<{
    match: (Case & { missing: string[] })[];
    coverage: (Case & { verdict: string })[];
  }>("capabilities");

  test.each(named(vectors.match))(
    "matches %s",
    async (_name, { missing, ...given }) => {
      expect(await ask("missing", given)).toEqual({
        missing: missing.join(","),
      });
    },
  );
  test.each(named(vectors.coverage))(
    "covers %s",
    async (_name, { verdict, ...given }) => {
      expect(await ask("coverage", given)).toEqual({ verdict });
    },
  );
});

describe("repeats after a lost reply", () => {
  type Repeat = Case & { ours: boolean };
  const vectors = readVectors<{
    ended: Repeat[];
    retryScheduled: Repeat[];
    parked: Repeat[];
  }>("reconcile");
  const code = "execution_not_active";

  test.each([
    ...vectors.ended.map((one) => ["ended", one] as const),
    ...vectors.retryScheduled.map((one) => ["retry_scheduled", one] as const),
    ...vectors.parked.map((one) => ["parked", one] as const),
  ])("%s: $name", async (rule, { ours, ...given }) => {
    expect(await ask(rule, { code, ...given })).toEqual({ ours });
    // Any other refusal tells nothing of the kind.
    expect(await ask(rule, { code: "stale_lease", ...given })).toEqual({
      ours: false,
    });
  });
});

describe("tokens", () => {
  const vectors = readVectors<{
    mints: (Case & {
      secretHex: string;
      kid: string;
      token?: string;
      refused?: string;
    })[];
    validations: (Case & { token: string; refused: string | null })[];
  }>("tokens");

  test.each(named(vectors.mints))("made: %s", async (_name, one) => {
    const { kid, secretHex, subject } = one;
    const keystore = { currentKid: kid, secrets: [{ kid, secretHex }] };
    const answer = await ask("mint", { keystore, subject });
    expect(answer["token"]).toBe(one.token);
    expect(answer["refused"]).toBe(one.refused);
  });

  test("none is made without a key", async () => {
    const { subject } = vectors.mints[0]!;
    for (const keystore of [{ secrets: [] }, { currentKid: "k1", secrets: [] }])
      expect(await ask("mint", { keystore, subject })).toMatchObject({
        refused: "hmac_secret_not_initialized",
      });
  });

  test.each(named(vectors.validations))("checked: %s", async (_name, one) => {
    const { refused, ...given } = one;
    const answer = await ask("validate", given);
    expect(answer["refused"] ?? null).toBe(refused);
  });
});

describe("the keystore", () => {
  const vectors = readVectors<{
    seeds: (Case & { plan: object })[];
    rotations: (Case & { plan: object })[];
    lists: (Case & {
      kids: { currentKid: string | null; verifying: object };
    })[];
  }>("keystore");

  test.each(named(vectors.seeds))(
    "first key: %s",
    async (_name, { plan, ...given }) => {
      expect(await ask("seed", given)).toEqual(plan);
    },
  );
  test.each(named(vectors.rotations))(
    "rotation: %s",
    async (_name, { plan, ...given }) => {
      expect(listsIn(await ask("rotate", given), plan)).toEqual(plan);
    },
  );
  test.each(named(vectors.lists))(
    "list: %s",
    async (_name, { kids, ...given }) => {
      const { verifying, ...rest } = await ask("kids", given);
      expect(Object.values(verifying as object)).toEqual(kids.verifying);
      expect(rest["currentKid"] ?? null).toBe(kids.currentKid);
    },
  );
});

describe("resume conditions", () => {
  interface Step {
    readonly effect: string;
    readonly counted: number[];
    readonly progress: unknown[];
  }
  const { evaluations } = readVectors<{
    evaluations: (Case & {
      initial: unknown[];
      steps: Step[];
      requiredSignalNames: Record<string, string[]>;
    })[];
  }>("conditions");

  test.each(named(evaluations))("%s", async (_name, { initial, ...given }) => {
    const answer = await ask("evaluate", given);
    const required = answer["requiredSignalNames"] as object;
    expect(listsIn(answer, { initial })["initial"]).toEqual(initial);
    expect(listsIn(required, given.requiredSignalNames)).toEqual(
      given.requiredSignalNames,
    );
    const answers = Object.values(answer["steps"] as object) as Answer[];
    expect(answers).toHaveLength(given.steps.length);
    for (const [index, { effect, counted, progress }] of given.steps.entries())
      expect(listsIn(answers[index]!, { counted, progress })).toEqual({
        effect,
        counted,
        progress,
        satisfied: effect === "resume_condition_satisfied",
        matched: !/^(no_op|signal_ignored)/.test(effect),
      });
  });
});

describe("suspensions", () => {
  const vectors = readVectors<{
    pendings: (Case & { fault: string | null })[];
    blockingReasons: Record<string, string>;
    replays: (Case & { ms: number })[];
    delays: (Case & { ms: number })[];
    timeouts: Record<string, object>;
    waitpointStates: (Case & { at: string })[];
    limits: (Case & { limit: number })[];
    judgements: (Case & { judged: string })[];
    observations: (Case & { seen: object })[];
  }>("suspension");

  test.each(named(vectors.pendings))(
    "on a pending waitpoint: %s",
    async (_name, { fault, ...given }) => {
      const answer = await ask("pending_key", given);
      expect(answer["fault"] ?? null).toBe(fault);
    },
  );
  test.each(Object.entries(vectors.blockingReasons))(
    "%s blocks as %s",
    async (reason, blocks) => {
      expect(await ask("blocking_reason", { reason })).toEqual({
        reason: blocks,
      });
    },
  );
  test.each(named(vectors.replays))(
    "remembered: %s",
    async (_name, { ms, ...given }) => {
      expect(await ask("replay", given)).toEqual({ ms });
    },
  );
  test.each(named(vectors.delays))(
    "delayed: %s",
    async (_name, { ms, ...given }) => {
      expect(await ask("resume_delay", given)).toEqual({ ms });
    },
  );
  test.each(Object.entries(vectors.timeouts))(
    "timed out: %s",
    async (behavior, effect) => {
      expect(await ask("timeout", { behavior })).toEqual(effect);
    },
  );
  test.each(named(vectors.waitpointStates))(
    "waitpoint: %s",
    async (_name, { at, ...given }) => {
      expect(await ask("waitpoint_state", given)).toEqual({ at });
    },
  );
  test.each(named(vectors.limits))(
    "limit: %s",
    async (_name, { limit, ...given }) => {
      expect(await ask("signal_limit", given)).toEqual({ limit });
    },
  );
  test.each(named(vectors.judgements))(
    "signal: %s",
    async (_name, { judged, ...given }) => {
      expect(await ask("judge", given)).toEqual({ judged });
    },
  );
  test.each(named(vectors.observations))(
    "observed: %s",
    async (_name, { seen, ...given }) => {
      expect(await ask("observe", given)).toEqual(seen);
    },
  );
});

describe("states", () => {
  interface Stored {
    readonly home: number;
    readonly name: string;
    readonly reason: string;
    readonly attemptState: string;
    readonly vector: { lifecyclePhase: string; terminalOutcome: string };
    readonly packed: number;
  }
  const { homes } = readVectors<{ homes: Stored[] }>("state");

  test.each(named(homes))("%s", async (_name, one) => {
    const { lifecyclePhase, terminalOutcome } = one.vector;
    const given = { ...one, name: luaName(one.name) };
    expect(await ask("state", given)).toEqual({
      home: one.home,
      packed: one.packed,
      lifecyclePhase,
      terminalOutcome,
      isTerminal: lifecyclePhase === "terminal",
      isRunnable: lifecyclePhase === "runnable",
    });
  });

  test("names have the same numbers on both sides", async () => {
    const { columns: _columns, ...codes } = await ask("codes", {});
    expect(codes).toEqual({
      ...readVectors<Answer>("codes"),
      homes: Object.fromEntries(
        Object.entries(HOME).map(([name, home]) => [luaName(name), home]),
      ),
      attemptTypes: numbered(ATTEMPT_TYPES),
      holds: HOLD,
    });
  });

  test("columns leave the server in the order in which they are read", async () => {
    const { columns } = await ask("codes", {});
    const sent = Object.keys(columns as object).sort(
      (a, b) =>
        (columns as Record<string, number>)[a]! -
        (columns as Record<string, number>)[b]!,
    );
    const executionId = "{fp:258}:01890a5d-ac96-774b-bcce-b302099a8057";
    const row = toExecutionRow([
      ...sent,
      refOf(executionId),
      null,
      null,
    ] as never);
    for (const column of sent)
      expect(row[column as keyof typeof row]).toBe(column);
    expect(executionIdOf(row)).toBe(executionId);
  });
});

describe("streams", () => {
  type End = { closedAtMs: number; closedReason: string };
  const vectors = readVectors<{
    nextFrameId: (Case & { next: object })[];
    sizeBestEffort: (Case & {
      mode: object;
      appends: { gapMs: number; rateHz: number; kept: number }[];
    })[];
    checkCallerSeq: (Case & {
      last: number | null;
      seqs: (number | null)[];
      verdict: string;
    })[];
    checkAppend: (Case & {
      record: { home: string };
      refused: string | null;
    })[];
    planAppend: (Case & { retainedAfter: number; excess: number })[];
    isFrameVisible: (Case & { ttlMs: number | null; visible: boolean })[];
    endOfAttempt: (Case & { attempt: { home: string }; end: End | null })[];
    endAttempt: (Case & { end: End })[];
    archivedEnds: (Case & { end: End; kept: object })[];
  }>("streams");

  test.each(named(vectors.nextFrameId))(
    "frame ids: %s",
    async (_name, { next, ...given }) => {
      expect(await ask("next_frame_id", given)).toEqual(next);
    },
  );

  test.each(named(vectors.sizeBestEffort))(
    "best-effort sizing: %s",
    async (_name, { mode, appends }) => {
      let rate: number | undefined;
      let atMs = 1_700_000_000_000;
      for (const { gapMs, rateHz, kept } of appends) {
        const given = { mode, rateHz: rate, atMs, nowMs: atMs + gapMs };
        const answer = await ask("size_best_effort", given);
        rate = Number(answer["rateHz"]);
        atMs += gapMs;
        expect(rate).toBeCloseTo(rateHz, 6);
        expect(answer["kept"]).toBe(kept);
      }
    },
  );

  test.each(named(vectors.checkCallerSeq))(
    "caller's numbers: %s",
    async (_name, { last, seqs, verdict }) => {
      const given = { last, first: seqs[0], final: seqs.at(-1) };
      expect(await ask("caller_seq", given)).toMatchObject({ verdict });
    },
  );

  test.each(named(vectors.checkAppend))(
    "may append: %s",
    async (_name, { refused, ...one }) => {
      const record = { ...one.record, home: luaName(one.record.home) };
      const answer = await ask("may_append", { ...one, record });
      expect(answer["refused"] ?? null).toBe(refused);
    },
  );

  test.each(named(vectors.planAppend))(
    "trims: %s",
    async (_name, { retainedAfter, excess, ...given }) => {
      const answer = await ask("admit", given);
      expect(answer).toEqual({ retainedAfter, excess });
    },
  );

  // What has no time to live is never asked about.
  test.each(vectors.isFrameVisible.filter(({ ttlMs }) => ttlMs !== null))(
    "visible $ttlMs ms at $nowMs: $visible",
    async ({ visible, ...given }) => {
      expect(await ask("is_visible", given)).toEqual({ visible });
    },
  );

  test.each(named(vectors.endOfAttempt))(
    "the end of an attempt: %s",
    async (_name, { end, ...one }) => {
      const attempt = { ...one.attempt, home: luaName(one.attempt.home) };
      const answer = await ask("end_of_attempt", { ...one, attempt });
      expect(answer).toEqual(end ?? {});
    },
  );

  test.each(named(vectors.endAttempt))(
    "ends: %s",
    async (_name, { end, ...given }) => {
      expect(await ask("end_attempt", given)).toEqual(end);
    },
  );

  test.each(named(vectors.archivedEnds))(
    "archived: %s",
    async (_name, { kept, ...given }) => {
      const answer = await ask("archive", given);
      expect(answer).toEqual({ kept, told: given.end });
    },
  );
});
