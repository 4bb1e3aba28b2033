/** What becomes of a call whose connection breaks before its answer. */
import type { EngineBackend } from "@flowfabric/core";
import { valkeyBackend, type ValkeyOptions } from "@flowfabric/valkey";
import {
  startRestartableValkey,
  until,
  type RestartableServer,
} from "@flowfabric/valkey-testing";
import { afterAll, beforeAll, expect, test } from "vitest";

/** More than the test may take. */
const ANSWER_TIMEOUT_MS = 60_000;

let server: RestartableServer;
beforeAll(async () => {
  server = await startRestartableValkey();
});
afterAll(() => server.stop());

/** Asked of a silent server, which then dies and is started again. */
async function outcomeOf(
  call: (backend: EngineBackend) => Promise<unknown>,
  options: ValkeyOptions = {},
): Promise<unknown> {
  await using backend = await valkeyBackend({
    url: server.url,
    answerTimeoutMs: ANSWER_TIMEOUT_MS,
    ...options,
  });
  await backend.createExecution({ executionKind: "k" });
  server.signal("SIGSTOP");
  const outcome = call(backend).catch((error: unknown) => error);
  // Once it is on its way.
  await new Promise((resolve) => setTimeout(resolve, 100));
  await server.shutDown("crash");
  await server.start();
  await until(
    async () =>
      (await backend.createExecution({ executionKind: "k" })) !== null,
    "the next one is carried out",
  );
  return await outcome;
}

const LOST = {
  code: "transport",
  detail: {
    backendKind: "transport",
    message: expect.stringContaining("lost"),
  },
};

test("it is told at once, and what comes after goes over the next", async () => {
  expect(
    await outcomeOf((backend) =>
      backend.createExecution({ executionKind: "k" }),
    ),
  ).toMatchObject(LOST);
});

test("also where it waits for the log", async () => {
  expect(
    await outcomeOf(
      (backend) => backend.createExecution({ executionKind: "k" }),
      { waitForReplicas: { replicas: 0, fsync: true } },
    ),
  ).toMatchObject(LOST);
});
