/** What a store does while nothing is to be done. */
import { compareIdle } from "@flowfabric/test-servers";
import type SqliteDriver from "better-sqlite3";
import { expect, onTestFinished, test, vi } from "vitest";

import { newPath, openWithConnection } from "./files.js";

test("thousands of suspended executions cost a claim that waits nothing", async () => {
  const { backend, connection } = await openWithConnection({ path: newPath() });

  const cost = await compareIdle(backend, 10_000, countStatements(connection));

  console.log(JSON.stringify(cost));
  // Portions take turns at what they tidy, and on a busy machine not as many run; any cost of theirs would be thousands.
  expect(cost.many).toBeLessThanOrEqual(2 * cost.none);
}, 120_000);

/** How many have run so far, but for the look at whether another process has committed: that is a timer's. */
function countStatements(connection: SqliteDriver.Database): () => number {
  const statement = Object.getPrototypeOf(
    connection.prepare("SELECT 1"),
  ) as SqliteDriver.Statement;
  const spies = (["run", "get", "all", "iterate"] as const).map((way) =>
    vi.spyOn(statement, way),
  );
  onTestFinished(() => spies.forEach((spy) => spy.mockRestore()));
  return () =>
    spies
      .flatMap(({ mock }) => mock.contexts as SqliteDriver.Statement[])
      .filter(({ source }) => !source.includes("data_version")).length;
}
