/** Calls that leave together are still calls of their own; and what a process hears of by itself it takes without a look. */
import { recordingPool } from "@flowfabric/postgres-testing";
import { expect, onTestFinished, test } from "vitest";

import { claim, newSchema, open, pause, url } from "./stores.js";

const CALLS = 12;
/** A claimant that has one call under way sends two statements at once; the rest gathers behind them. */
const STATEMENTS_MAX = 3;
const PARKED_MS = 500;

async function recorded(schema: string) {
  const log = recordingPool({ connectionString: url, max: 8 });
  onTestFinished(() => log.pool.end());
  return { log, backend: await open({ pool: log.pool, schema }) };
}

test("ends with claims of one worker leave together, and each finds its own leases again", async () => {
  const { log, backend } = await recorded(newSchema());
  const submit = () =>
    backend.submitMany({
      items: Array.from({ length: CALLS }, () => ({ executionKind: "k" })),
    });
  await submit();
  const { claimed } = await backend.claimMany({ ...claim, max: CALLS });
  await submit();
  // Together they ask for one more than there is.
  await backend.createExecution({ executionKind: "k" });
  log.take();

  const request = (n: number) => ({
    ...claim,
    max: n === 0 ? 3 : 1,
    requestId: `request-${n}`,
  });
  const answers = await Promise.all(
    claimed.map(({ handle }, n) =>
      backend.completeAndClaim({ items: [{ handle }], claim: request(n) }),
    ),
  );
  const statements = log
    .take()
    .filter(({ text }) => text.includes("told_of_ends"));

  expect(statements.length).toBeLessThanOrEqual(STATEMENTS_MAX);
  expect(answers.map(({ results }) => results)).toEqual(
    claimed.map(() => [{ kind: "completed" }]),
  );
  const taken = answers.flatMap((answer) => answer.claimed);
  expect(new Set(taken.map(({ executionId }) => executionId)).size).toBe(
    CALLS + 1,
  );
  for (const [n, answer] of answers.entries()) {
    expect(answer.claimed.length).toBeLessThanOrEqual(request(n).max);
    const again = await backend.claimMany({ ...request(n), repeat: true });
    if (answer.claimed.length > 0)
      expect(ids(again.claimed)).toEqual(ids(answer.claimed));
  }
});

test("an end that is refused leaves the others of its statement, and all claims, as they are", async () => {
  const { backend } = await recorded(newSchema());
  await backend.submitMany({
    items: Array.from({ length: 2 * CALLS }, () => ({ executionKind: "k" })),
  });
  const { claimed } = await backend.claimMany({ ...claim, max: CALLS });
  const [refused] = claimed;
  await backend.revokeLease({
    executionId: refused!.executionId,
    reason: "for a test",
  });

  const answers = await Promise.all(
    claimed.map(({ handle }) =>
      backend.completeAndClaim({
        items: [{ handle }],
        claim: { ...claim, max: 1 },
      }),
    ),
  );

  expect(answers.map(({ results }) => results[0]!.kind)).toEqual([
    "rejected",
    ...claimed.slice(1).map(() => "completed"),
  ]);
  expect(answers.map((answer) => answer.claimed.length)).toEqual(
    claimed.map(() => 1),
  );
});

test.each([
  [1, 0],
  [2, 1],
])(
  "of %i processes that wait for work of another one, each looks %i times before it claims",
  async (processes, looks) => {
    const schema = newSchema();
    const submitter = await open({ schema });
    await submitter.createExecution({ executionKind: "k" });
    const workers = await Promise.all(
      Array.from({ length: processes }, () => recorded(schema)),
    );
    await submitter.claimMany(claim);
    const parked = workers.map(({ backend }, n) =>
      backend.claimMany({
        ...claim,
        workerInstanceId: `w${n}`,
        maxWaitMs: 20_000,
      }),
    );
    await pause(PARKED_MS);
    for (const { log } of workers) log.take();

    await submitter.createExecution({ executionKind: "k" });
    const winner = await Promise.race(
      parked.map(async (wait, n) => {
        await wait;
        return n;
      }),
    );

    const sent = workers[winner]!.log.take().map(({ text }) => text);
    const claims = sent.findIndex((text) => text.includes("told_of_claims"));
    expect(claims).toBeGreaterThanOrEqual(0);
    expect(
      sent.slice(0, claims).filter((text) => text.includes("AS timer,")),
    ).toHaveLength(looks);
    await submitter.createExecution({ executionKind: "k" });
    await Promise.all(parked);
  },
  30_000,
);

const ids = (claimed: readonly { readonly executionId: string }[]) =>
  claimed.map(({ executionId }) => executionId).sort();
