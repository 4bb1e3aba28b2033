/** What every fault test on Valkey works with: a server, an empty store on it, and the ways that lead there. */
import { randomUUID } from "node:crypto";

import { withClient, type RestartableServer } from "@flowfabric/valkey-testing";
import { onTestFinished } from "vitest";

import { TcpProxy } from "./tcp-proxy.js";

/** The server of the file, which is started before its tests. Nobody else's, for it is shut down and emptied. */
export type ServerOf = () => RestartableServer;

export interface ValkeyBench {
  readonly server: RestartableServer;
  /** Begins the store's keys. */
  readonly prefix: string;
  /** The text that opens the store; through a proxy where one is named. */
  store(options?: StoreOptions): string;
  /** Asks the server, on a connection of its own. */
  ask(command: string, ...args: readonly string[]): Promise<unknown>;
}

interface StoreOptions {
  readonly through?: TcpProxy;
  readonly answerTimeoutMs?: number;
  /** Submissions and ends wait until so many have them. */
  readonly replicas?: number;
}

/** Its keys go with the server. */
export function createValkeyBench(server: RestartableServer): ValkeyBench {
  const prefix = `faults_${randomUUID().replaceAll("-", "")}`;
  return {
    server,
    prefix,
    store: (options = {}) => storeAt(server, prefix, options),
    ask: (command, ...args) =>
      withClient(server, (client) => client.call(command, ...args)),
  };
}

export function storeAt(
  { host, port }: Pick<RestartableServer, "host" | "port">,
  prefix: string,
  { through, ...options }: StoreOptions = {},
): string {
  const parameters = new URLSearchParams({ prefix });
  for (const [name, value] of Object.entries(options))
    parameters.set(name, String(value));
  return `valkey://${host}:${through?.port ?? port}?${parameters.toString()}`;
}

/** Closed with the test. */
export async function startProxy({
  host,
  port,
}: RestartableServer): Promise<TcpProxy> {
  const proxy = await TcpProxy.start({ host, port });
  onTestFinished(() => proxy.close());
  return proxy;
}
