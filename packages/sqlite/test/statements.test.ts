/** What a statement costs beside its work. */
import { expect, test } from "vitest";

import { READY_CANDIDATES } from "../src/procedures/candidates.js";
import { Session } from "../src/session.js";
import { newPath, open, openRaw, tell } from "./files.js";

const CALLS = 500;
const ROUNDS = 9;

/** The fastest of them says what it takes where nothing else is in the way. */
function fastestUs(call: () => unknown): number {
  let fastest = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const beganMs = performance.now();
    for (let n = 0; n < CALLS; n++) call();
    fastest = Math.min(fastest, performance.now() - beganMs);
  }
  return (fastest / CALLS) * 1_000;
}

test("a statement is planned once, whatever is bound to it", async () => {
  const path = newPath();
  await open({ path });
  const connection = openRaw(path);
  const session = new Session(connection, { offsetMs: 0 }, () => {});
  const values = [1, Date.now(), Date.now(), 16];
  const bare = connection.prepare(READY_CANDIDATES).raw();

  const plannedOnceUs = fastestUs(() =>
    session.rows(READY_CANDIDATES, ...values),
  );
  const plannedEachTimeUs = fastestUs(() => bare.all(...values));

  tell(
    `a look that finds nothing takes ${plannedOnceUs.toFixed(1)} µs, ${plannedEachTimeUs.toFixed(1)} µs where it is planned anew`,
  );
  // It is a tenth. Where the two are alike SQLite no longer looks at values, and the signs in front of parameters can go.
  expect(plannedOnceUs).toBeLessThan(plannedEachTimeUs / 2);
});
