/**
 * Servers for the tests. The usual one: what the environment names, else one by Docker, else by the machine's own programs,
 * else by those of Debian's archive. Nothing is kept unless settings say so, and all files are in a temporary folder.
 */
import { execFileSync } from "node:child_process";

import {
  firstOf,
  givenServer,
  givenUrl,
  type TestServer,
} from "@flowfabric/test-servers";

import { answering, until, infoField, withClient } from "./clients.js";
import {
  configurationText,
  DURABLE,
  programWays,
  QUICK,
  REPLICATING,
  startProcess,
  type RestartableServer,
  type Settings,
} from "./processes.js";
import { REDIS, VALKEY, type Product } from "./products.js";

export interface ServerOptions {
  /**
   * On top of the usual ones, such as `{ maxmemory: "64mb" }`. A server that the environment names is as its owner set it
   * up.
   */
  readonly settings?: Settings;
  /** Where a server that is started here puts its files. */
  readonly directory?: string;
}

export function startValkey(options: ServerOptions = {}): Promise<TestServer> {
  return startServer(VALKEY, options);
}

export function startRedis(options: ServerOptions = {}): Promise<TestServer> {
  return startServer(REDIS, options);
}

/** One that keeps what it answered, however it ends, unless the settings say otherwise. */
export function startRestartableValkey({
  settings = {},
  directory,
}: ServerOptions = {}): Promise<RestartableServer> {
  return firstOf(
    howToGet(VALKEY, []),
    programWays(VALKEY, (programs) =>
      startProcess(VALKEY, programs, {
        settings: { ...DURABLE, ...REPLICATING, ...settings },
        directory,
      }),
    ),
  );
}

/** Resolves when it has all that the other one has, and hears of the rest. */
export async function startReplica(
  of: RestartableServer,
  { settings = {}, directory }: ServerOptions = {},
): Promise<RestartableServer> {
  const replica = await startRestartableValkey({
    settings: { ...settings, replicaof: `${of.host} ${of.port}` },
    ...(directory === undefined ? {} : { directory }),
  });
  try {
    await inSync(replica);
    return replica;
  } catch (error) {
    await replica.stop();
    throw error;
  }
}

/** Until a replica has caught up with what it replicates. */
export function inSync(replica: RestartableServer): Promise<void> {
  return until(
    () =>
      withClient(
        replica,
        async (client) =>
          infoField(await client.info("replication"), "master_link_status") ===
          "up",
      ),
    `${replica.url} is in sync`,
  );
}

function startServer(
  product: Product,
  { settings, directory }: ServerOptions,
): Promise<TestServer> {
  const given = givenUrl(product.variable);
  if (given !== undefined) return Promise.resolve(givenServer(given));
  const all = { ...QUICK, ...settings };
  return firstOf<TestServer>(howToGet(product), [
    ["Docker", () => startContainer(product, all)],
    ...programWays(product, (programs) =>
      startProcess(product, programs, { settings: all, directory }),
    ),
  ]);
}

/** @param others ways that only the usual server has */
export function howToGet(
  { name, program, variable }: Product,
  others: readonly string[] = [
    `set ${variable} to ${name === "Redis" ? "redis" : "valkey"}://<host>:<port>`,
    "start Docker",
  ],
): string {
  return [
    `No ${name} server for the tests. Do one of these and run them again:`,
    ...others.map((other) => `  - ${other},`),
    `  - install ${name} ${name === "Redis" ? "7" : "8"}, so that ${program} is in PATH,`,
    "  - on Debian, let apt-get reach its archive: the program is unpacked from there into node_modules/.cache, and nothing is installed.",
  ].join("\n");
}

const CONTAINER_PORT = 6379;

async function startContainer(
  { name, program, image }: Product,
  settings: Settings,
): Promise<TestServer> {
  requireDocker();
  const { GenericContainer } = await import("testcontainers");
  const configuration = "/tmp/server.conf";
  const container = await new GenericContainer(image)
    .withCopyContentToContainer([
      {
        target: configuration,
        content: configurationText({ ...OUTSIDE, ...settings }),
        mode: 0o644,
      },
    ])
    .withExposedPorts(CONTAINER_PORT)
    .withCommand([program, configuration])
    .start();
  const stop = async () => void (await container.stop());
  const host = container.getHost();
  const port = container.getMappedPort(CONTAINER_PORT);
  try {
    await answering({ host, port });
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url: `${name === "Redis" ? "redis" : "valkey"}://${host}:${port}`,
    stop,
  };
}

/** In a container whoever asks comes from outside. */
export const OUTSIDE: Settings = { bind: "*", "protected-mode": "no" };

/** Soon known, where testcontainers would look for a while. */
export function requireDocker(): void {
  execFileSync("docker", ["info"], {
    stdio: ["ignore", "ignore", "pipe"],
    timeout: 5_000,
  });
}
