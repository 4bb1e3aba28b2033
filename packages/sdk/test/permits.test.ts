import { expect, test } from "vitest";

import { Permits } from "../src/permits.js";

test("no more are taken than there are", () => {
  const permits = new Permits(3);

  expect(permits.take(2)).toHaveLength(2);
  expect(permits.take(2)).toHaveLength(1);
  expect(permits.take(2)).toHaveLength(0);
  expect(permits.free).toBe(0);
});

test("a permit is given back once, however often it is released", () => {
  const permits = new Permits(1);
  const [permit] = permits.take(1);

  permit?.release();
  permit?.release();

  expect(permits.free).toBe(1);
});

test("who waits is woken by a release, after the pool's owner was told", async () => {
  const permits = new Permits(1);
  const order: string[] = [];
  permits.released = () => order.push("owner");
  const [permit] = permits.take(1);
  const waiting = permits.waitForFree().then(() => order.push("waiter"));

  permit?.release();
  await waiting;

  expect(order).toEqual(["owner", "waiter"]);
});

test("waiting ends with the signal's reason", async () => {
  const permits = new Permits(1);
  permits.take(1);
  const abort = new AbortController();
  const waiting = permits.waitForFree(abort.signal);

  abort.abort(new Error("enough"));

  await expect(waiting).rejects.toThrow("enough");
});
