/** What every fault test on Postgres works with: the server, and an empty store on it with the ways that lead there. */
import { randomUUID } from "node:crypto";

import { onTestFinished } from "vitest";

import type { PostgresServer } from "./postgres-server.js";
import { TcpProxy, type Tap } from "./tcp-proxy.js";

/** The server of the file, which is started before its tests. */
export type ServerOf = () => PostgresServer;

export interface PostgresBench {
  readonly server: PostgresServer;
  readonly schema: string;
  /** The text that opens the store; through a proxy where one is named. */
  store(options?: StoreOptions): string;
}

interface StoreOptions {
  readonly through?: TcpProxy;
  /** Of the listening connection alone. */
  readonly listenThrough?: TcpProxy;
  readonly maxConnections?: number;
  readonly answerTimeoutMs?: number;
}

export function createPostgresBench(server: PostgresServer): PostgresBench {
  const schema = `faults_${randomUUID().replaceAll("-", "")}`;
  onTestFinished(async () => {
    await server.query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`);
  });
  return {
    server,
    schema,
    store({ through, listenThrough, ...options } = {}) {
      const url = addressOf(server, through);
      url.searchParams.set("schema", schema);
      if (listenThrough !== undefined)
        url.searchParams.set("listen", addressOf(server, listenThrough).href);
      for (const [name, value] of Object.entries(options))
        url.searchParams.set(name, String(value));
      return url.href;
    },
  };
}

/** Closed with the test. */
export async function startProxy(
  server: PostgresServer,
  tap?: () => Tap,
): Promise<TcpProxy> {
  const proxy = await TcpProxy.start({
    host: "127.0.0.1",
    port: server.port,
    ...(tap === undefined ? {} : { tap }),
  });
  onTestFinished(() => proxy.close());
  return proxy;
}

function addressOf(server: PostgresServer, through?: TcpProxy): URL {
  const url = new URL(server.url);
  if (through !== undefined) url.port = String(through.port);
  return url;
}
