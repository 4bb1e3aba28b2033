/**
 * Signals whatever waits, again and again, until it is killed. Its keys are the same every time: of what another one sent
 * before, nothing counts twice.
 */
import { setTimeout as sleep } from "node:timers/promises";

import { isEngineError, type EngineBackend } from "@flowfabric/core";
import { Client } from "@flowfabric/sdk";
import { z } from "zod";

import { report, runProgram } from "../program.js";

const Options = z.object({ signals: z.number() });

await runProgram(Options, async (backend, { signals }) => {
  const client = new Client({ backend });
  report({ kind: "ready" });
  for (;;) {
    const { executions } = await backend.listExecutions({
      publicStates: ["active", "suspended"],
      limit: 1_000,
    });
    await Promise.all(
      executions.map((executionId) =>
        signalAll(backend, client, executionId, signals),
      ),
    );
    await sleep(5);
  }
});

async function signalAll(
  backend: EngineBackend,
  client: Client,
  executionId: string,
  signals: number,
): Promise<void> {
  const { entries } = await backend.listPendingWaitpoints({ executionId });
  for (const waitpoint of entries) {
    const token = await client.signalToken(waitpoint);
    if (token === undefined) continue;
    for (let n = 0; n < signals; n++) {
      await send(token.reveal(), String(n));
      // Somebody else may be at the same waitpoint, and everybody may be killed here.
      await sleep(Math.random() * 10);
    }
  }

  async function send(token: string, key: string): Promise<void> {
    try {
      const answer = await client.signal(token, {
        name: key,
        idempotencyKey: key,
      });
      if (answer.kind === "duplicate") return;
      report({
        kind: "signalled",
        executionId,
        signalId: answer.signalId,
        resumed: answer.kind === "triggeredResume",
      });
    } catch (error) {
      // Its attempt ended, or it was resumed, meanwhile.
      if (
        !isEngineError(error, "waitpoint_closed") &&
        !isEngineError(error, "target_not_signalable")
      )
        throw error;
    }
  }
}
