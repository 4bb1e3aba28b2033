/** The other process of {@link pickupAcrossProcesses}: parks a claim, tells when it has work, completes it, again. */
import { backendNamed } from "../backends.js";
import { claimOf } from "./jobs.js";
import { hostClockMs, PARK_MS, type PickupNews } from "./pickup.js";

const [name, location] = process.argv.slice(2);
const stop = new AbortController();
process.on("disconnect", () => stop.abort());

await using backend = await backendNamed(name!).open(location!);
while (!stop.signal.aborted) {
  tell("parked");
  const { claimed } = await backend.claimMany({
    ...claimOf(1, PARK_MS),
    signal: stop.signal,
  });
  if (claimed.length === 0) continue;
  tell("claimed");
  await backend.complete({ handle: claimed[0]!.handle });
}

function tell(kind: PickupNews["kind"]): void {
  const news: PickupNews = { kind, atMs: hostClockMs() };
  // With a callback, that nobody listens any more is no error: then this process is about to end anyway.
  if (process.connected) process.send?.(news, undefined, {}, () => {});
}
