import type { ExecutionId } from "@flowfabric/core";
import { expect, test } from "vitest";

import { analyse } from "../src/demo/analyse.js";
import type { Attempt, FileHistory } from "../src/demo/history.js";
import { reportHtml } from "../src/demo/report-html.js";
import { summarise, type RunFacts } from "../src/demo/summary.js";

const START = 1_800_000_000_000;
const KILL_AT = START + 1_000;

function attempt(
  index: number,
  type: Attempt["type"],
  instanceId: string,
  from: number,
  to: number,
  outcome: Attempt["outcome"],
): Attempt {
  return {
    index,
    type,
    instanceId,
    startedAtMs: START + from,
    endedAtMs: START + to,
    outcome,
    reason: undefined,
  };
}

function file(
  path: string,
  attempts: readonly Attempt[],
  changes: Partial<FileHistory> = {},
): FileHistory {
  return {
    path,
    origin: "new",
    executionId: `{fp:1}:${path}` as ExecutionId,
    state: "completed",
    analysis: analyse(path, new TextEncoder().encode("two words")),
    reason: undefined,
    category: undefined,
    attempts,
    pickupsMs: [10],
    completionEvents: 1,
    expectedCompletionEvents: 1,
    ...changes,
  };
}

/** Two workers; the first is killed while it holds `lost.md`, which the second takes over. */
function killedRun(): RunFacts {
  const lost = file("lost.md", [
    attempt(0, "initial", "w1-x", 900, 3_000, "lost"),
    attempt(1, "reclaim", "w2-x", 3_000, 3_050, "completed"),
  ]);
  return {
    folder: "/repo",
    store: "/repo/demo.db",
    startedAtMs: START,
    endedAtMs: START + 4_000,
    leaseTtlMs: 2_000,
    slotsPerWorker: 1,
    workerNames: new Map([
      ["w1-x", "worker-1"],
      ["w2-x", "worker-2"],
    ]),
    kill: {
      worker: "worker-1",
      instanceId: "w1-x",
      pid: 4711,
      atMs: KILL_AT,
      held: [lost.executionId],
    },
    files: [
      file("a.md", [attempt(0, "initial", "w1-x", 500, 600, "completed")]),
      file("flaky.md", [
        attempt(0, "initial", "w2-x", 500, 600, "retried"),
        attempt(1, "retry", "w2-x", 1_000, 1_100, "completed"),
      ]),
      lost,
      file(
        "<img src=x>.md",
        [attempt(0, "initial", "w2-x", 700, 710, "failed")],
        {
          state: "failed",
          analysis: undefined,
          reason: "cannot read </script><script>",
        },
      ),
      file(
        "old.md",
        [attempt(0, "initial", "w9-old", -9_000, -8_900, "completed")],
        {
          origin: "reused",
        },
      ),
    ],
  };
}

test("the figures come from this run's attempts, the kill included", () => {
  expect(summarise(killedRun())).toMatchObject({
    fresh: 4,
    reused: 1,
    completed: 4,
    words: 8,
    attempts: 6,
    retries: 1,
    recovered: 1,
    recoveryMs: 2_000,
    pickup: { p50: 10, p99: 10 },
    workers: [
      { name: "worker-1", completed: 1, failed: 0, lost: 1, killed: true },
      { name: "worker-2", completed: 2, failed: 2, lost: 0, killed: false },
    ],
  });
});

test("the report marks the kill and needs nothing from the network", () => {
  const facts = killedRun();
  const html = reportHtml(facts, summarise(facts));
  expect(html).toContain('data-kill="true"');
  expect(html).toContain("kill -9 worker-1 at 1.00 s");
  expect(html).toContain("taken over 2.00 s later");
  expect(html).not.toMatch(/https?:/);
  expect(html).not.toMatch(/<(?:script|img|iframe|source)[^>]*\ssrc=/);
  expect(html).not.toMatch(/<link[^>]*href="(?!data:)/);
  expect(html).not.toMatch(/@import|url\((?!#)/);
});

test("what a killed worker held ends at the kill, not when the store noticed", () => {
  const facts = killedRun();
  const html = reportHtml(facts, summarise(facts));
  // 900 ms to 1 000 ms of 4 000 ms.
  expect(html).toMatch(
    /class="bar lost"[^>]* x="22\.500%"[^>]* width="2\.500%"/,
  );
});

test("names and reasons cannot become markup", () => {
  const facts = killedRun();
  const html = reportHtml(facts, summarise(facts));
  expect(html).not.toContain("<img");
  expect(html).toContain("&lt;img src=x&gt;.md");
  expect(html.match(/<\/script>/g)).toHaveLength(2);
});

test("a run that reused everything says that nothing ran", () => {
  const { files, ...rest } = killedRun();
  const facts: RunFacts = {
    ...rest,
    kill: undefined,
    workerNames: new Map(),
    files: files.filter(({ origin }) => origin === "reused"),
  };
  const html = reportHtml(facts, summarise(facts));
  expect(html).toContain("Nothing ran");
  expect(html).not.toContain("data-kill");
});

test("a wrong number of completion events is said at the top", () => {
  const { files, ...rest } = killedRun();
  const facts: RunFacts = {
    ...rest,
    files: [...files, file("twice.md", [], { completionEvents: 2 })],
  };
  const html = reportHtml(facts, summarise(facts));
  expect(html).toContain('class="verdict wrong"');
  expect(html).toContain("twice.md");
});
