/** The other process of {@link tailAcrossProcesses}: follows one stream, and waits for many that stay silent. */
import { Client } from "@flowfabric/sdk";

import { backendNamed } from "../backends.js";
import { endOfProcess, hostClockMs, tell } from "../other-process.js";
import type { ReaderNews } from "./tailing.js";

const [name, location, executionId, parkedTails] = process.argv.slice(2);
const end = endOfProcess();
await using backend = await backendNamed(name!).open(location!);
await using client = new Client({ backend });

const silent = Array.from({ length: Number(parkedTails) }, () => park());
// Parked are those that have looked once.
await new Promise((resolve) => setTimeout(resolve, 500 + silent.length));
tellOf({ kind: "parked" });
try {
  for await (const event of client.stream(
    { executionId: executionId! },
    { signal: end },
  ))
    if (event.kind === "frame")
      tellOf({ kind: "frame", text: event.text, atMs: hostClockMs() });
} catch (error) {
  if (!end.aborted) throw error;
}
await Promise.allSettled(silent);

/** Of an execution of its own, which nobody runs. */
async function park(): Promise<void> {
  const silent = await client.submit({
    laneId: "silent",
    executionKind: "silent",
  });
  while (!end.aborted)
    await backend.tailStream({
      executionId: silent.executionId,
      attemptIndex: 0,
      after: "0-0",
      blockMs: 30_000,
      countLimit: 1,
      signal: end,
    });
}

function tellOf(news: ReaderNews): void {
  tell(news);
}
