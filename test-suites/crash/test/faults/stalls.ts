/** A network that stalls, forgets and resets: what lies between a store's server and everyone who works with it. */
import { describe, test } from "vitest";

import { machineMs } from "../../src/reports.js";
import { pause } from "../fleet.js";
import { scaled, TIMEOUT_MS } from "../harness.js";
import { Load } from "./load.js";
import type { TcpProxy } from "./tcp-proxy.js";

/** A store that is reached through a proxy, and directly. */
interface ProxiedStore {
  readonly proxy: TcpProxy;
  readonly store: string;
  readonly direct: string;
}

export interface StallHarness {
  readonly name: string;
  /** Connections that answer nothing for so long count as lost. */
  open(options: { answerTimeoutMs: number }): Promise<ProxiedStore>;
}

const ANSWER_TIMEOUT_MS = 1_000;

export function stallTests({ name, open }: StallHarness): void {
  describe(`${name}: a network that fails`, { timeout: TIMEOUT_MS }, () => {
    test("a stall of every connection is waited out, and resets of all at once cost nobody anything", async () => {
      const { proxy, ...ways } = await open({ answerTimeoutMs: 30_000 });
      const load = await Load.start(ways);
      proxy.stall();
      await pause(scaled(10_000, 2_000));
      proxy.resume();
      await load.recovered("stall waited out", machineMs());
      for (let round = 0; round < scaled(50, 10); round++) {
        proxy.reset();
        await pause(Math.random() * 300);
      }
      await load.recovered("resets", machineMs());
      await load.finish();
    });

    test("connections that are silently dead, old ones and those just being made, are noticed and replaced", async () => {
      const { proxy, ...ways } = await open({
        answerTimeoutMs: ANSWER_TIMEOUT_MS,
      });
      const load = await Load.start(ways);
      for (let round = 0; round < scaled(5, 1); round++) {
        proxy.forget();
        await load.recovered("silently dead", machineMs());
      }
      proxy.stall();
      await pause(2 * ANSWER_TIMEOUT_MS);
      proxy.forget();
      proxy.resume();
      await load.recovered("unreachable, then dead", machineMs());
      await load.finish();
    });
  });
}
