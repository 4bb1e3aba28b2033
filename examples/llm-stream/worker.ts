/** One worker, in a process of its own so that it can be killed: `node worker.js <store> <namespace>`. */
import { setTimeout as sleep } from "node:timers/promises";

import { Client, Worker } from "@flowfabric/sdk";

import { openStore } from "../harness/stores.js";
import { Answer, generate } from "./lib.js";

const [store = "", namespace = "default"] = process.argv.slice(2);
const TOKEN_MS = 20;

await using backend = await openStore(store);
await using client = new Client({ backend, namespace });
// The shortest lease there is: as soon others take over.
await using worker = new Worker({ backend, namespace, leaseTtlMs: 1_000 });

worker.handle(Answer, async ({ question }, task) => {
  const prefix = await tokensOfEarlierAttempts(
    task.executionId,
    task.attemptIndex,
  );
  let tokens = prefix.length;
  const pause = () => sleep(TOKEN_MS, undefined, { signal: task.signal });
  for await (const token of generate(question, prefix, pause)) {
    // Slows down where the store does; the end of the task waits for what is on its way.
    await task.stream.ready;
    void task.stream.write(token, { frameType: "token" });
    tokens += 1;
  }
  await task.stream.flush();
  return { tokens, byAttempt: task.attemptIndex };
});

/** They have ended, so what they have put out changes no more. */
async function tokensOfEarlierAttempts(
  executionId: string,
  attemptIndex: number,
): Promise<string[]> {
  const tokens: string[] = [];
  if (attemptIndex === 0) return tokens;
  for await (const event of client.stream({ executionId })) {
    if (event.kind === "frame") tokens.push(event.text);
    if (event.kind === "end" && event.attemptIndex === attemptIndex - 1) break;
  }
  return tokens;
}

// Without the example nobody needs it.
process.once("disconnect", () => void worker.stop());
await worker.run();
if (process.connected) process.disconnect();
