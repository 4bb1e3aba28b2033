import { inspect } from "node:util";

import { expect, test } from "vitest";

import { Client } from "../src/client.js";
import { connect } from "../src/connect.js";
import { Worker } from "../src/worker.js";
import { openStore, recordingLogger, withFaults } from "./store.js";

const given = { kid: "main", secretHex: "0f".repeat(32) };

test("a client gives an empty store a random key, and the stored one wins", async () => {
  const { backend } = await openStore();
  const logger = recordingLogger();

  await new Client({ backend })[Symbol.asyncDispose]();
  expect(await backend.listWaitpointHmacKids()).toMatchObject({
    currentKid: "k1",
    verifying: [],
  });
  await new Client({ backend, logger })[Symbol.asyncDispose]();
  expect(logger.lines).toEqual([]);
  await new Client({ backend, logger, waitpointHmac: given })[
    Symbol.asyncDispose
  ]();

  expect((await backend.listWaitpointHmacKids()).currentKid).toBe("k1");
  expect(logger.warnings()).toEqual([
    "the store signs waitpoint tokens with another key than the one configured; the stored one is used",
  ]);
});

test("a configured key is installed by whoever starts first, and is the same for all", async () => {
  const { backend } = await openStore();
  const logger = recordingLogger();
  const options = { backend, logger, waitpointHmac: given };

  await using _first = await connect(options);
  await using _second = await connect(options);

  expect((await backend.listWaitpointHmacKids()).currentKid).toBe("main");
  expect(logger.warnings()).toEqual([]);
  expect(await backend.seedWaitpointHmacSecret(given)).toMatchObject({
    sameSecret: true,
  });
  const secretHex = "1f".repeat(32);
  await using _third = await connect({
    ...options,
    waitpointHmac: { kid: "main", secretHex },
  });
  expect(logger.warnings()).toHaveLength(1);
});

test("two that start at once keep one key", async () => {
  const { backend, reopen } = await openStore();
  const other = await reopen();

  await Promise.all(
    [backend, other].map(async (store) => {
      await using conn = await connect({ backend: store });
      return conn.freePermits;
    }),
  );

  expect(await backend.listWaitpointHmacKids()).toEqual(
    await other.listWaitpointHmacKids(),
  );
  expect((await backend.listWaitpointHmacKids()).currentKid).toBe("k1");
});

test("a lost reply is asked again; a store that cannot take it is a warning only", async () => {
  const { backend: real } = await openStore();
  const { backend, loseReplies, loseCalls, callsOf } = withFaults(real);
  const logger = recordingLogger();
  loseCalls("seedWaitpointHmacSecret", 3);
  await using conn = await connect({ backend, logger });
  expect(conn.freePermits).toBe(1);
  expect(logger.warnings()).toEqual([
    "key for waitpoint tokens could not be installed",
  ]);

  loseReplies("seedWaitpointHmacSecret");
  await new Client({ backend })[Symbol.asyncDispose]();
  expect(callsOf("seedWaitpointHmacSecret")).toHaveLength(5);
  expect((await real.listWaitpointHmacKids()).currentKid).toBe("k1");
});

test("a key that cannot be is refused before anything else, and never shown", async () => {
  const { backend: real } = await openStore();
  const { backend, calls } = withFaults(real);
  const secretHex = "secret-but-not-hex";
  for (const make of [
    () => new Client({ backend, waitpointHmac: { secretHex } }),
    () => new Worker({ backend, waitpointHmac: { secretHex } }),
  ])
    try {
      make();
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({
        code: "config",
        detail: { field: "waitpoint_hmac" },
      });
      expect(inspect(error, { depth: 9 })).not.toContain(secretHex);
    }
  expect(
    () => new Worker({ backend, waitpointHmac: { ...given, kid: "a:b" } }),
  ).toThrow(/kid/);
  const worker = new Worker({ backend, waitpointHmac: given });
  expect(inspect(worker.config, { depth: 9 })).not.toContain(given.secretHex);
  expect(calls()).toEqual([]);
});
