import { afterEach, expect, test, vi } from "vitest";

import { Client } from "../src/client.js";
import { connect } from "../src/connect.js";
import { openStore, pause, until, withFaults } from "./store.js";

afterEach(() => {
  vi.useRealTimers();
});

/** Only the heartbeat's own clock is driven by hand: the store needs the others. */
async function open(leaseTtlMs: number) {
  const store = await openStore();
  const faults = withFaults(store.backend);
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
  const conn = await connect({ backend: faults.backend, leaseTtlMs });
  const client = new Client({ backend: store.backend });
  return { ...store, faults, conn, client };
}

test("a heartbeat keeps a process registered, each third of its time", async () => {
  const { faults, conn } = await open(1_000);
  await using _connected = conn;

  vi.advanceTimersByTime(3_000);
  await pause(20);
  expect(faults.callsOf("heartbeatWorker")).toEqual([]);
  vi.advanceTimersByTime(500);

  await until(() => faults.callsOf("heartbeatWorker").length === 1);
});

test("claims are heartbeats, where they come often enough to be written", async () => {
  const long = await open(30_000);
  await using _long = long.conn;
  await long.conn.claimNext();
  vi.advanceTimersByTime(25_000);
  await pause(20);
  expect(long.faults.callsOf("heartbeatWorker")).toEqual([]);
  vi.useRealTimers();

  const short = await open(1_000);
  await using _short = short.conn;
  await short.conn.claimNext();
  vi.advanceTimersByTime(3_500);
  await until(() => short.faults.callsOf("heartbeatWorker").length === 1);
});

test("a process the registry has forgotten registers again", async () => {
  const { conn, client } = await open(1_000);
  await using _connected = conn;
  const { workerInstanceId } = conn.config;
  await client.admin.deregisterWorker({ workerInstanceId });

  vi.advanceTimersByTime(3_500);

  await until(
    async () => (await client.admin.listWorkers({})).entries.length === 1,
  );
});
