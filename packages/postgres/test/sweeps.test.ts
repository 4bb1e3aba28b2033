/** What only this store has of sweeps: they pass over rows that others hold, and so take turns. */
import { expect, test } from "vitest";

import { TAKE_TURNS } from "../src/operations/maintenance.js";
import { connect, newSchema, open, pause } from "./stores.js";

test("what one sweep holds, and leaves as it is, the next one finds", async () => {
  const schema = newSchema();
  const backend = await open({ schema });
  const nowMs = await backend.serverTimeMs();
  const { executionId } = await backend.createExecution({
    executionKind: "late",
    executionDeadlineAtMs: nowMs + 50,
  });
  await pause(100);
  // As one for attempts does, whose timers lie among those of deadlines.
  const other = await connect();
  await other.query("BEGIN");
  await other.query(TAKE_TURNS.replaceAll("{schema}", `"${schema}"`));
  await other.query(`SELECT 1 FROM "${schema}".executions FOR UPDATE`);
  const sweep = backend.sweep({ name: "execution_deadline" });
  await pause(100);
  await other.query("COMMIT");
  expect(await sweep).toMatchObject({ processed: 1 });
  const snapshot = await backend.describeExecution({ executionId });
  expect(snapshot).toMatchObject({ publicState: "expired" });
});
