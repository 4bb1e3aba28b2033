/** When claims that wait answer, and what they look at before. */
import { expect, test } from "vitest";

import { parked } from "../src/sql/parking.js";

/** Rings once a claim waits, and says whether there is work; its portions end when they are let. */
function storeThatRings(isWork: boolean) {
  const calls: string[] = [];
  let endPortion = () => {};
  let portions = Promise.resolve();
  const store = {
    wakeups: {
      closed: false,
      requireOpen() {},
      ticket: () => 0,
      isCurrent: () => true,
    },
    async wait() {
      calls.push("wait");
      return await Promise.resolve(isWork);
    },
    async drive() {
      await portions;
      return undefined;
    },
    async look() {
      calls.push("look");
      const found = calls.includes("wait");
      return await Promise.resolve({
        found,
        dueInMs: Infinity,
        timerInMs: Infinity,
      });
    },
  };
  return {
    calls,
    store,
    beginPortion() {
      portions = new Promise((resolve) => (endPortion = resolve));
    },
    endPortion: () => endPortion(),
  };
}

const found = {
  attempt: async () => await Promise.resolve("work"),
  isEmpty: () => false,
};

test("a claim that may wait has its answer before the portion beside it, one that may not, behind it", async () => {
  const { store, beginPortion, endPortion } = storeThatRings(false);
  beginPortion();

  expect(await parked(store, { lanes: [] }, 1_000, undefined, found)).toBe(
    "work",
  );

  let isAnswered = false;
  const answer = parked(store, { lanes: [] }, 0, undefined, found);
  void answer.then(() => (isAnswered = true));
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(isAnswered).toBe(false);
  endPortion();
  expect(await answer).toBe("work");
});

test.each([
  { isWork: false, calls: ["look", "wait", "look"] },
  { isWork: true, calls: ["look", "wait"] },
])(
  "a ring leads to a look, unless it says that there is work: $isWork",
  async ({ isWork, calls }) => {
    const ringing = storeThatRings(isWork);
    const answers = ["", "work"];
    const answer = await parked(
      ringing.store,
      { lanes: [] },
      60_000,
      undefined,
      {
        attempt: async () => await Promise.resolve(answers.shift()!),
        isEmpty: (text) => text === "",
      },
    );

    expect([answer, ringing.calls]).toEqual(["work", calls]);
  },
);
