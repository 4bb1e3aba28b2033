/** The other process of {@link pickupAcrossProcesses}: parks a claim, tells when it has work, completes it, again. */
import { backendNamed } from "../backends.js";
import { endOfProcess, hostClockMs, tell } from "../other-process.js";
import { claimOf } from "./jobs.js";
import { PARK_MS, type PickupNews } from "./pickup.js";

const [name, location] = process.argv.slice(2);
const end = endOfProcess();

await using backend = await backendNamed(name!).open(location!);
while (!end.aborted) {
  tellOf("parked");
  const { claimed } = await backend.claimMany({
    ...claimOf(1, PARK_MS),
    signal: end,
  });
  if (claimed.length === 0) continue;
  tellOf("claimed");
  await backend.complete({ handle: claimed[0]!.handle });
}

function tellOf(kind: PickupNews["kind"]): void {
  tell({ kind, atMs: hostClockMs() } satisfies PickupNews);
}
