/** How much room does a finished execution take, with its whole history? */
import type { MeasuredBackend } from "../backends.js";
import type { Sample } from "./figures.js";
import { claimSome, fill, insist, payloadOf } from "./jobs.js";

/** What is left of `count` executions that were submitted, claimed and completed without a result. */
export async function bytesPerFinished(
  measured: MeasuredBackend,
  directory: string,
  payloadBytes: number,
  count: number,
): Promise<Sample> {
  const location = await measured.create(directory);
  try {
    await finishSome(measured, location, payloadBytes, 100);
    const before = await measured.storedBytes(location);
    await finishSome(measured, location, payloadBytes, count);
    const after = await measured.storedBytes(location);
    return { bytes: (after - before) / count };
  } finally {
    await measured.remove(location);
  }
}

async function finishSome(
  measured: MeasuredBackend,
  location: string,
  payloadBytes: number,
  count: number,
): Promise<void> {
  await using backend = await measured.open(location);
  await fill(backend, count, payloadOf(payloadBytes));
  for (let done = 0; done < count;) {
    const claimed = await claimSome(backend, 100);
    const results = await backend.completeMany({
      items: claimed.map(({ handle }) => ({ handle })),
    });
    insist(
      results.every(({ kind }) => kind === "completed"),
      "a completion was refused",
    );
    done += claimed.length;
  }
}
