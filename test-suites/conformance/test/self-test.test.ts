/** The suite against backends that are wrong on purpose: what it cannot see it does not prove. */
import { expect, test } from "vitest";

import { sqliteHarness } from "../../../packages/sqlite/test/harness.js";
import { BROKEN_BACKENDS, brokenHarness } from "./broken-backends.js";
import { casesOf, firstFailure } from "./run-groups.js";

// Whether there is a failure is all that matters here, not which is the smallest.
process.env["FLOWFABRIC_TEST_SCALE"] = "0.05";
process.env["FLOWFABRIC_TEST_SHRINK"] = "off";

const TIMEOUT_MS = 300_000;

for (const broken of BROKEN_BACKENDS) {
  test(
    `it notices that ${broken.fault}`,
    async () => {
      const harness = brokenHarness(sqliteHarness(), broken);
      // The first group is the one whose cases state the rule; random sequences come behind it as a second net.
      for (const group of broken.groups) {
        const cases = casesOf([group], harness);
        expect(cases.length).toBeGreaterThan(0);
        if ((await firstFailure(cases)) !== undefined) return;
      }
      expect.fail("no group of the suite sees anything wrong");
    },
    TIMEOUT_MS,
  );
}

test(
  "the same cases hold on the sound backend",
  async () => {
    const groups = new Set(BROKEN_BACKENDS.flatMap((broken) => broken.groups));
    const cases = casesOf([...groups], sqliteHarness());
    const failure = await firstFailure(cases);
    expect(failure?.error, failure?.name).toBeUndefined();
  },
  TIMEOUT_MS,
);

test("a layer that spoils nothing is sound", async () => {
  const harness = brokenHarness(sqliteHarness(), {
    fault: "nothing",
    groups: [],
    spoil: () => ({}),
  });
  const backend = await harness.open();
  await harness.passTime(backend, 5);
  const second = await harness.reopen!(backend);
  expect(await second.serverTimeMs()).toBeGreaterThan(0);
  await second.close();
  await backend.close();
});
