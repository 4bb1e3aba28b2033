/** Making connections. */
import type { Cluster, Redis } from "ioredis";

/**
 * Connects. The driver's own promise is never settled where the first node of a cluster that it asks is gone, though it
 * goes on and connects by another.
 */
export async function connected(
  client: Redis | Cluster,
  timeoutMs: number,
): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  let onReady: (() => void) | undefined;
  const ready = new Promise<void>((resolve) => {
    onReady = resolve;
    client.once("ready", onReady);
  });
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(reject, timeoutMs, new Error("Command timed out"));
  });
  try {
    await Promise.race([client.connect(), ready, late]);
  } finally {
    clearTimeout(timer);
    client.off("ready", onReady!);
  }
}
