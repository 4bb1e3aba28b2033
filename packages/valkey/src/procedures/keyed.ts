/**
 * Submissions with an idempotency key. A key belongs to one cell, by its lane and itself, and so do the ids that are made
 * for it: then one call does all. An id of the caller's may lie in another cell. Then the key is held in its own cell
 * for some seconds, the execution written in the other, and the key kept. Whoever comes upon a key that is only held
 * looks whether its execution is there, and finishes what was begun.
 */
import { setTimeout as pause } from "node:timers/promises";

import {
  engineError,
  type CreateExecutionResult,
  type Refusal,
} from "@flowfabric/core";
import { executionIdOf } from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import { jsonOf, listOf, textOf, type Reply } from "../connection.js";
import { readRef } from "../rows.js";
import type { Store } from "../store.js";
import {
  kindOf,
  restoreWhereNew,
  saying,
  toSubmitted,
  type Submission,
} from "./submit.js";

/** Between looks at a key that another submission holds. */
const LOOK_MS = 20;
/** Longer than a key can be held. */
const PATIENCE_MS = 15_000;

/** Where the key of a submission belongs; nothing where there is none, or only one cell. */
export function keyCell(
  { cells, partitionOfKey }: Store,
  { args, request }: Submission,
): Cell | undefined {
  return request.key === undefined || cells.all.length === 1
    ? undefined
    : cells.ofPartition(partitionOfKey(args.laneId, request.key));
}

/** Where keys may lead to other cells, a request says how many there are. */
export function amongCells(
  { cells }: Store,
  submission: Submission,
): Submission {
  const { length } = cells.all;
  return length === 1 ? submission : saying(submission, { cells: length });
}

export async function submitOne(
  store: Store,
  submission: Submission,
): Promise<CreateExecutionResult | Refusal> {
  const own = store.cells.of(submission.args.executionId);
  const home = keyCell(store, submission) ?? own;
  const endsAtMs = performance.now() + PATIENCE_MS;
  let asked = amongCells(store, submission);
  for (;;) {
    const answer =
      home === own
        ? await own.submissions.submit(asked)
        : await submitAcross(home, own, asked);
    await restoreWhereNew(own, [answer]);
    const kind = kindOf(answer);
    if (kind !== "elsewhere" && kind !== "late")
      return toSubmitted(submission, answer);
    if (kind === "elsewhere") {
      const [, ref, isHeld] = listOf(answer);
      const found = await store.cells
        .of(executionIdOf(readRef(ref)))
        .call("find_submitted", ref as Buffer);
      if (found.length > 0) {
        if (isHeld === 1) await keep(home, ref as Buffer, submission);
        return toSubmitted(submission, found);
      }
      // What the key led to is gone, or is about to come.
      if (isHeld !== 1)
        asked = saying(asked, { dead: (ref as Buffer).toString("hex") });
    }
    if (performance.now() > endsAtMs)
      throw engineError("retry_exhausted", { attempts: 1 });
    await pause(LOOK_MS);
  }
}

async function submitAcross(
  home: Cell,
  own: Cell,
  submission: Submission,
): Promise<Reply> {
  const { ref, request } = submission;
  const held = await home.call("hold_key", ref, jsonOf(request));
  if (textOf(held[0]!) !== "held") return held;
  const answer = await own.submissions.submit(
    saying(submission, { heldUntil: held[1] as number }),
  );
  if (kindOf(answer) === "created") await keep(home, ref, submission);
  else await letGo(home, ref, submission);
  return answer;
}

function keep(
  home: Cell,
  ref: Buffer,
  { request }: Submission,
): Promise<unknown> {
  return home.call("keep_key", ref, jsonOf(request));
}

function letGo(
  home: Cell,
  ref: Buffer,
  { request }: Submission,
): Promise<unknown> {
  return home.call("keep_key", ref, jsonOf({ ...request, window: 0 }));
}
