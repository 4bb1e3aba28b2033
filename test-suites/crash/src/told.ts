/** What callers were answered against what a store at rest holds: nothing lost, nothing twice, nothing that nobody wrote. */
import { isDeepStrictEqual } from "node:util";

import type {
  EngineBackend,
  ExecutionEvent,
  StreamFrame,
} from "@flowfabric/core";

import { endsWait, listAll, readHistory } from "./invariants.js";
import type { Told } from "./reports.js";

const LOOKS_AT_ONCE = 16;
const PAGE = 10_000;
/** Effects that fill a condition. */
const COUNTED = ["appended_to_waitpoint", "resume_condition_satisfied"];

/** @param all what everybody who wrote was answered */
export async function findUntold(
  backend: EngineBackend,
  all: readonly Told[],
): Promise<string[]> {
  const signals = byKey(
    all.flatMap((told) => told.signals),
    ({ executionId }) => executionId,
  );
  const suspensions = byKey(
    all.flatMap((told) => told.suspensions),
    ({ executionId }) => executionId,
  );
  const frames = byKey(
    all.flatMap((told) => told.frames),
    ({ executionId, attemptIndex }) => `${executionId} ${attemptIndex}`,
  );
  const violations: string[] = [];
  const look = async (executionId: string) => {
    const events = await readHistory(backend, executionId);
    const found = [
      ...wrongSignals(events, signals.get(executionId) ?? []),
      ...wrongConditions(events, suspensions.get(executionId) ?? []),
    ];
    const attempts = await backend.listAttempts({ executionId });
    for (const { attemptIndex } of attempts)
      found.push(
        ...(await wrongFrames(
          backend,
          { executionId, attemptIndex },
          frames.get(`${executionId} ${attemptIndex}`) ?? [],
        )),
      );
    violations.push(...found.map((line) => `${executionId}: ${line}`));
  };
  const executionIds = await listAll(backend);
  for (let at = 0; at < executionIds.length; at += LOOKS_AT_ONCE)
    await Promise.all(executionIds.slice(at, at + LOOKS_AT_ONCE).map(look));
  return violations;
}

/** The history has the signals that were accepted, each with the effect that its sender was told. */
function wrongSignals(
  events: readonly ExecutionEvent[],
  told: Told["signals"],
): string[] {
  const stored = signalsIn(events).map(
    ({ signalId, effect }) => `${signalId} ${effect}`,
  );
  const accepted = told.map(({ signalId, effect }) => `${signalId} ${effect}`);
  return isDeepStrictEqual(stored.sort(), accepted.sort())
    ? []
    : [`signals: ${stored.join()} stored, ${accepted.join()} told`];
}

function signalsIn(events: readonly ExecutionEvent[]) {
  return events.flatMap(({ type, data }) =>
    type === "signal"
      ? [data as { readonly signalId: string; readonly effect: string }]
      : [],
  );
}

/** As many signals counted as were needed where they ended the wait, and fewer where they did not. */
function wrongConditions(
  events: readonly ExecutionEvent[],
  told: Told["suspensions"],
): string[] {
  const found: string[] = [];
  for (const { suspensionId, needed } of told) {
    const from = events.findIndex(
      ({ type, data }) =>
        type === "suspended" && data?.["suspensionId"] === suspensionId,
    );
    if (from === -1) {
      found.push(`${suspensionId} is not in the history`);
      continue;
    }
    const behind = events.slice(from + 1);
    const end = behind.findIndex(endsWait);
    const during = end === -1 ? behind : behind.slice(0, end + 1);
    const effects = signalsIn(during).map(({ effect }) => effect);
    const counted = effects.filter((effect) => COUNTED.includes(effect));
    const isSatisfied = behind[end]?.type === "signal";
    if (isSatisfied ? counted.length !== needed : counted.length >= needed)
      found.push(
        `${suspensionId} needed ${needed}, ${isSatisfied ? "ended" : "went on"} after ${effects.join()}`,
      );
  }
  return found;
}

/** The stream has the frames that were accepted, in the order of their ids, and its summary has the patches among them. */
async function wrongFrames(
  backend: EngineBackend,
  attempt: { readonly executionId: string; readonly attemptIndex: number },
  told: Told["frames"],
): Promise<string[]> {
  const stored: StreamFrame[] = [];
  for (let after = "0-0"; ;) {
    const page = await backend.tailStream({
      ...attempt,
      after,
      blockMs: 0,
      countLimit: PAGE,
    });
    if (page.frames.length === 0) break;
    stored.push(...page.frames);
    after = page.nextCursor;
  }
  const accepted = new Map(told.map(({ id, text }) => [id, text]));
  const found: string[] = [];
  const name = `attempt ${attempt.attemptIndex}`;
  if (accepted.size !== told.length)
    found.push(`${name}: an id was given out twice`);
  const ids = stored.map(({ id }) => id);
  if (!isDeepStrictEqual(ids, [...accepted.keys()].sort(byPosition)))
    found.push(
      `${name}: ${ids.join()} stored, ${[...accepted.keys()].join()} told`,
    );
  for (const { id, payload } of stored)
    if (Buffer.from(payload).toString() !== accepted.get(id))
      found.push(`${name}: another text at ${id}`);
  const patches = told.filter(({ isPatch }) => isPatch).length;
  const version = (await backend.readSummary(attempt))?.version ?? 0;
  if (version !== patches)
    found.push(`${name}: version ${version} of ${patches} patches`);
  return found;
}

function byPosition(a: string, b: string): number {
  const [aMs = 0, aN = 0] = a.split("-").map(Number);
  const [bMs = 0, bN = 0] = b.split("-").map(Number);
  return aMs - bMs || aN - bN;
}

function byKey<T>(all: readonly T[], keyOf: (one: T) => string) {
  const found = new Map<string, T[]>();
  for (const one of all)
    found.set(keyOf(one), [...(found.get(keyOf(one)) ?? []), one]);
  return found;
}
