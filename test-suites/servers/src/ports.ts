/** Loopback ports that nobody listens on. */
import { createServer } from "node:net";

export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  return port!;
}

/** All different, which as many single ones need not be. */
export async function freePorts(count: number): Promise<number[]> {
  const probes = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    probes.map(async (probe) => {
      await new Promise<void>((resolve, reject) => {
        probe.once("error", reject);
        probe.listen(0, "127.0.0.1", () => resolve());
      });
      const address = probe.address();
      if (address === null || typeof address === "string")
        throw new Error("no free port");
      return address.port;
    }),
  );
  await Promise.all(
    probes.map((probe) => new Promise((resolve) => probe.close(resolve))),
  );
  return ports;
}
