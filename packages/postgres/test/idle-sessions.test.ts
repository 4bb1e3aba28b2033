/** Sessions that nobody will use again give their places at the server back. */
import { expect, test, vi } from "vitest";

import { idleLimits, limitIdleTime } from "../src/idle-sessions.js";
import {
  claim,
  connect,
  newSchema,
  Peer,
  query,
  SLACK,
  url,
} from "./stores.js";

const ANSWER_TIMEOUT_MS = 500;

test("the server ends the sessions of a process that fell silent, and the process goes on when it is back", async () => {
  const schema = newSchema();
  const address = new URL(url);
  address.searchParams.set("application_name", schema);
  const sessions = async () =>
    (
      await query("SELECT FROM pg_stat_activity WHERE application_name = $1", [
        schema,
      ])
    ).length;
  const peer = new Peer();
  const call = (operation: string, input: object) =>
    peer.ask("call", { operation, input });
  await peer.ask("open", {
    options: {
      connectionString: address.href,
      schema,
      answerTimeoutMs: ANSWER_TIMEOUT_MS,
    },
  });
  // Waits, and so it listens as well.
  await call("claimMany", { ...claim, maxWaitMs: 100 });
  expect(await sessions()).toBeGreaterThanOrEqual(2);

  peer.freeze();
  await vi.waitFor(async () => expect(await sessions()).toBe(0), {
    timeout: SLACK * 2 * ANSWER_TIMEOUT_MS,
    interval: 50,
  });
  peer.thaw();

  const { executionId } = (await call("createExecution", {
    executionKind: "x",
  })) as { executionId: string };
  expect(await call("claimMany", claim)).toMatchObject({
    claimed: [{ executionId }],
  });
  await peer.ask("close");
});

test("a session's own limit is longer than its client's, and an operator's is left as it is", async () => {
  const limits = idleLimits(1_000);
  expect(limits).toEqual({ clientMs: 1_000, serverMs: 2_000 });
  expect(idleLimits(2 ** 31 - 1)).toEqual({
    clientMs: 10_000,
    serverMs: 2 ** 31 - 1,
  });

  for (const [operators, expected] of [
    ["0", "2s"],
    ["60000", "1min"],
  ] as const) {
    const client = await connect({
      connectionString: url,
      options: `-c idle_session_timeout=${operators}`,
    });
    await limitIdleTime(client, limits);
    const { rows } = await client.query("SHOW idle_session_timeout");
    expect(rows).toEqual([{ idle_session_timeout: expected }]);
  }
});
