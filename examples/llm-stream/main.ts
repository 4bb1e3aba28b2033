/** An answer is watched token by token while its writer is killed with SIGKILL. Another goes on where that one stopped. */
import assert from "node:assert/strict";

import type { StreamEvent } from "@flowfabric/sdk";

import { runExample } from "../harness/example.js";
import { Answer, tokensOf } from "./lib.js";

const WORKER = new URL("./worker.js", import.meta.url);
const QUESTION = "what happens to a stream when its writer dies?";
/** So many are seen before the kill. */
const KILL_AFTER_TOKENS = 20;
/** A reader that comes back so often, as a browser does, with nothing but its last cursor. */
const READ_AT_ONCE = 7;

await runExample("llm-stream", async (example) => {
  const { client, log } = example;
  const first = example.startProcess(WORKER);
  log("engine", "one worker runs");
  const input = { question: QUESTION };
  const { executionId } = await client.submit(Answer, { input });
  const restless = readInPieces();

  const seen: StreamEvent[] = [];
  for await (const event of client.stream({ executionId })) {
    seen.push(event);
    if (event.kind === "frame") example.write(event.text);
    else log("reader", `(attempt ${event.attemptIndex}: ${event.kind})`);
    if (seen.length !== KILL_AFTER_TOKENS) continue;
    first.kill("SIGKILL");
    example.startProcess(WORKER);
    log("engine", "kill -9; another worker waits for the lease to lapse");
  }

  const all = tokensOf(QUESTION);
  assert.deepEqual(tokensIn(seen), all, "every token once and in order");
  const [lost, success] = seen.filter((event) => event.kind === "end");
  assert.match(lost!.reason, /^(lease_expired|reclaimed)$/);
  assert.equal(lost!.attemptIndex, 0);
  assert.deepEqual(seen.at(-1), success);
  assert.equal(success!.attemptIndex, 1);
  assert.equal(success!.reason, "attempt_success");
  const boundary = seen.indexOf(lost!);
  assert(boundary >= KILL_AFTER_TOKENS && boundary < all.length);
  for (const [at, { attemptIndex }] of seen.entries())
    assert.equal(attemptIndex, at <= boundary ? 0 : 1);
  const again = await restless;
  assert.deepEqual(
    again.map(asTold),
    seen.map(asTold),
    "cursors lead to the same",
  );
  log("reader", `${all.length} tokens, each once and in order`);

  const end = await client.result(Answer, { executionId });
  assert(end.kind === "completed");
  assert.deepEqual(end.output, { tokens: all.length, byAttempt: 1 });
  log("engine", "the second attempt completed it");

  async function readInPieces(): Promise<StreamEvent[]> {
    const events: StreamEvent[] = [];
    for (let before = -1; before < events.length;) {
      before = events.length;
      const after = events.at(-1)?.cursor;
      for await (const event of client.stream({ executionId, after })) {
        events.push(event);
        if (events.length === before + READ_AT_ONCE) break;
      }
    }
    return events;
  }
});

/** That a lease ran out is told more exactly once another worker has taken over; whoever read earlier saw less. */
function asTold(event: StreamEvent): StreamEvent {
  return event.kind === "end" && event.reason === "lease_expired"
    ? { ...event, reason: "reclaimed" }
    : event;
}

function tokensIn(events: readonly StreamEvent[]): string[] {
  return events.flatMap((event) =>
    event.kind === "frame" ? [event.text] : [],
  );
}
