/** A prefix per test, with a clock that the test moves. */
import type { BackendHarness, OpenOptions } from "@flowfabric/conformance";
import type { EngineBackend } from "@flowfabric/core";
import { valkeyBackend } from "@flowfabric/valkey";
import {
  isClusterUrl,
  openClient,
  removeKeys,
} from "@flowfabric/valkey-testing";

import { newPrefix, serverAt } from "./stores.js";

interface OpenedStore {
  readonly prefix: string;
  readonly options: OpenOptions;
}

/** As many as a store has where nothing is said of them. */
const CLUSTER_CELLS = 16;

/** `finish` ends what the harness has going on; to be called after the last test. */
export function valkeyHarness(
  url: string,
): BackendHarness & { finish(): Promise<void> } {
  const stores = new WeakMap<EngineBackend, OpenedStore>();
  const admin = openClient(url);
  const removals: Promise<unknown>[] = [];
  const connect = async (store: OpenedStore): Promise<EngineBackend> => {
    const backend = await valkeyBackend({
      ...store.options,
      ...serverAt(url),
      prefix: store.prefix,
      testClock: true,
    });
    stores.set(backend, store);
    return backend;
  };
  const storeOf = (backend: EngineBackend): OpenedStore => {
    const store = stores.get(backend);
    if (store === undefined) throw new Error("not opened by this harness");
    return store;
  };

  return {
    name: "valkey",
    async finish() {
      const errors = (await Promise.all(removals)).filter(
        (outcome) => outcome instanceof Error,
      );
      admin.disconnect();
      if (errors.length > 0)
        throw new AggregateError(errors, "keys were left behind");
    },
    async open(options = {}) {
      const prefix = newPrefix();
      const backend = await connect({ prefix, options });
      const close = backend.close.bind(backend);
      backend.close = async () => {
        await close();
        // The next test does not wait for it.
        removals.push(
          removeKeys(admin, prefix).catch(
            // Heard at the end.
            (error: unknown) => error,
          ),
        );
      };
      return backend;
    },
    reopen: (backend) => connect(storeOf(backend)),
    async passTime(backend, ms) {
      const { prefix } = storeOf(backend);
      const cells = isClusterUrl(url) ? CLUSTER_CELLS : 1;
      // The library for tests adds it to the server's time, in each cell by itself.
      await Promise.all(
        Array.from({ length: cells }, (_unused, cell) =>
          admin.hincrby(`${prefix}:{${cell}}`, "clock", ms),
        ),
      );
    },
  };
}
