/** What leaves together, what does not, and whose failure is whose. */
import { setImmediate as turn } from "node:timers/promises";

import { Grouped, inGroups, type GroupedOptions } from "@flowfabric/core";
import { expect, onTestFinished, test, vi } from "vitest";

interface Call {
  readonly items: readonly string[];
  /** As its place in the call and itself. */
  readonly answer: () => Promise<void>;
  readonly fail: (error: Error) => Promise<void>;
}

/** Calls that have been made, and are answered when the test says so. */
function callsOf(options: Partial<GroupedOptions> = {}) {
  const calls: Call[] = [];
  const grouped = new Grouped(
    async (items: readonly string[]) =>
      await new Promise<string[]>((resolve, reject) => {
        calls.push({
          items,
          answer: async () => {
            resolve(items.map((item, index) => `${index}${item}`));
            await turns();
          },
          fail: async (error) => {
            reject(error);
            await turns();
          },
        });
      }),
    { itemsMax: 100, bytesMax: 100, ...options },
  );
  /** Failures are told like answers. */
  const call = (item: string, bytes?: number) =>
    grouped.call(item, bytes).catch((error: Error) => error.message);
  return { calls, call };
}

/** Long enough for what is scheduled behind an answer. */
async function turns() {
  for (let n = 0; n < 3; n++) await turn();
}

const made = (calls: readonly Call[]) =>
  calls.map(({ items }) => items.join(""));

test("calls of one turn leave as one behind it, and each hears its own answer", async () => {
  const { calls, call } = callsOf();
  const answers = ["a", "b"].map((item) => call(item));
  await Promise.resolve();
  answers.push(call("c"));
  expect(calls).toEqual([]);
  await turns();
  expect(made(calls)).toEqual(["abc"]);
  await calls[0]!.answer();
  expect(await Promise.all(answers)).toEqual(["0a", "1b", "2c"]);
});

test("two are under way at once; what comes meanwhile gathers, and leaves in its order", async () => {
  const { calls, call } = callsOf();
  const answers: Promise<string>[] = [];
  for (const item of ["a", "b", "c", "d"]) {
    answers.push(call(item));
    await turns();
  }
  expect(made(calls)).toEqual(["a", "b"]);
  await calls[1]!.answer();
  expect(made(calls)).toEqual(["a", "b", "cd"]);
  answers.push(call("e"));
  await turns();
  expect(calls).toHaveLength(3);
  await calls[2]!.answer();
  expect(made(calls).slice(3)).toEqual(["e"]);
  await calls[0]!.answer();
  await calls[3]!.answer();
  expect(await Promise.all(answers)).toEqual(["0a", "0b", "0c", "1d", "0e"]);
});

test("one call takes so many items and so many bytes, the rest leaves with the next", async () => {
  const { calls, call } = callsOf({ itemsMax: 3, bytesMax: 10 });
  for (const item of ["a", "b", "c", "d"]) void call(item);
  void call("e", 9);
  void call("f", 2);
  void call("g", 99);
  void call("h", 1);
  await turns();
  expect(made(calls)).toEqual(["abc", "de"]);
  for (let n = 0; n < calls.length; n++) await calls[n]!.answer();
  expect(made(calls).slice(2)).toEqual(["f", "g", "h"]);
});

test("groups are filled in order, and what is too long goes alone", () => {
  const limits = { itemsMax: 3, bytesMax: 10 };
  const groups = (bytes: readonly number[]) => [
    ...inGroups(bytes, (item) => item, limits),
  ];
  expect(groups([])).toEqual([]);
  expect(groups([10])).toEqual([[10]]);
  expect(groups([4, 6, 1, 1, 1, 1])).toEqual([[4, 6], [1, 1, 1], [1]]);
  expect(groups([1, 11, 1])).toEqual([[1], [11], [1]]);
});

test("where it is dealt out, what waits goes in shares to the calls that may be made", async () => {
  const { calls, call } = callsOf({ isDealtOut: true });
  for (const item of "abcde") void call(item);
  await turns();
  expect(made(calls)).toEqual(["abc", "de"]);
  for (const item of "fgh") void call(item);
  await calls[0]!.answer();
  expect(made(calls).slice(2)).toEqual(["fgh"]);
});

test("a failure is everyone's, unless one item may have done it: then it is its own", async () => {
  const failure = new Error("connection");
  const whole = callsOf();
  const lost = ["a", "b"].map((item) => whole.call(item));
  await turns();
  await whole.calls[0]!.fail(failure);
  expect(await Promise.all(lost)).toEqual(["connection", "connection"]);
  expect(whole.calls).toHaveLength(1);

  const { calls, call } = callsOf({
    mayBeOfOne: (error) => error !== failure,
  });
  const answers = ["a", "b", "c"].map((item) => call(item));
  await turns();
  await calls[0]!.fail(new Error("of b"));
  expect(made(calls)).toEqual(["abc", "a", "b", "c"]);
  await calls[1]!.answer();
  await calls[2]!.fail(new Error("of b"));
  await calls[3]!.answer();
  expect(await Promise.all(answers)).toEqual(["0a", "of b", "0c"]);
  expect(calls).toHaveLength(4);

  const others = ["d", "e"].map((item) => call(item));
  await turns();
  await calls[4]!.fail(failure);
  expect(await Promise.all(others)).toEqual(["connection", "connection"]);
  expect(calls).toHaveLength(5);
});

test("what fails makes room like what is answered", async () => {
  const { calls, call } = callsOf();
  const answers: Promise<string>[] = [];
  for (const item of ["a", "b", "c"]) {
    answers.push(call(item));
    await turns();
  }
  await calls[0]!.fail(new Error("of a"));
  expect(made(calls)).toEqual(["a", "b", "c"]);
  await calls[1]!.answer();
  await calls[2]!.answer();
  expect(await Promise.all(answers)).toEqual(["of a", "0b", "0c"]);
});

test("calls that take long are passed by, and make room only once", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  onTestFinished(() => void vi.useRealTimers());
  const { calls, call } = callsOf({ quickMs: 100 });
  const answers: Promise<string>[] = [];
  const callEach = async (items: string) => {
    for (const item of items) {
      answers.push(call(item));
      await turns();
    }
  };
  await callEach("abc");
  vi.advanceTimersByTime(99);
  await turns();
  expect(made(calls)).toEqual(["a", "b"]);
  vi.advanceTimersByTime(1);
  await turns();
  expect(made(calls)).toEqual(["a", "b", "c"]);

  for (const { answer } of calls) await answer();
  await callEach("def");
  expect(made(calls).slice(3)).toEqual(["d", "e"]);
  for (const { answer } of calls.slice(3)) await answer();
  await calls[5]!.answer();
  expect(await Promise.all(answers)).toEqual([
    "0a",
    "0b",
    "0c",
    "0d",
    "0e",
    "0f",
  ]);
  expect(vi.getTimerCount()).toBe(0);
});
