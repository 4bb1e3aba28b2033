/**
 * A server for tests and benchmarks, started once per run: the one that FLOWFABRIC_TEST_POSTGRES_URL names, else one by
 * Docker, else the machine's own binaries. All its data is in a temporary folder.
 */
import { spawn, execFileSync, type ChildProcess } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
} from "node:fs";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import pg from "pg";

const HOW_TO_GET_ONE = `No Postgres server. Do one of these and run it again:
  - set FLOWFABRIC_TEST_POSTGRES_URL to a database in which schemas may be made,
  - start Docker (and install testcontainers),
  - install Postgres 14 or newer, so that initdb and postgres are in PATH or in /usr/lib/postgresql/<major>/bin.`;

const START_MS_MAX = 30_000;
const IMAGE = "postgres:17";

const SHARED = ["max_connections=300", "shared_buffers=128MB"];
const QUICK = [
  ...SHARED,
  "fsync=off",
  "full_page_writes=off",
  "synchronous_commit=off",
];
/** As a fresh installation has them, but for room in the log: a checkpoint in the middle would measure the disk. */
const DURABLE = [
  ...SHARED,
  "fsync=on",
  "full_page_writes=on",
  "synchronous_commit=on",
  "max_wal_size=4GB",
];

export interface TestServer {
  readonly url: string;
  stop(): Promise<void>;
}

export interface ServerOptions {
  /**
   * With the syncs of a server that is meant to keep its data: what a benchmark measures. Tests do without, for theirs
   * is thrown away. A server that the environment names is as its owner set it up.
   */
  readonly durable?: boolean;
  /** Where the machine's own binaries put their data. */
  readonly directory?: string;
}

export async function startServer(
  options: ServerOptions = {},
): Promise<TestServer> {
  const given = process.env["FLOWFABRIC_TEST_POSTGRES_URL"];
  if (given !== undefined && given !== "")
    return { url: given, stop: async () => {} };
  const settings = options.durable === true ? DURABLE : QUICK;
  const server =
    (await startContainer(settings)) ??
    (await startBinaries(settings, options.directory ?? "/tmp"));
  if (server === undefined) throw new Error(HOW_TO_GET_ONE);
  return server;
}

interface Container {
  getHost(): string;
  getMappedPort(port: number): number;
  stop(): Promise<unknown>;
}
interface Containers {
  readonly GenericContainer: new (image: string) => {
    withEnvironment(environment: Record<string, string>): ContainerBuilder;
  };
}
interface ContainerBuilder {
  withExposedPorts(port: number): ContainerBuilder;
  withCommand(command: string[]): ContainerBuilder;
  start(): Promise<Container>;
}

/** Nothing where Docker does not answer or testcontainers is not installed. */
async function startContainer(
  settings: readonly string[],
): Promise<TestServer | undefined> {
  try {
    execFileSync("docker", ["info"], { stdio: "ignore", timeout: 5_000 });
    // By a name that the compiler does not follow: the package is optional.
    const name: string = "testcontainers";
    const { GenericContainer } = (await import(name)) as Containers;
    const container = await new GenericContainer(IMAGE)
      .withEnvironment({ POSTGRES_HOST_AUTH_METHOD: "trust" })
      .withExposedPorts(5432)
      .withCommand(["postgres", ...asArguments(settings)])
      .start();
    const url = `postgres://postgres@${container.getHost()}:${container.getMappedPort(5432)}/postgres`;
    await answering(url);
    return { url, stop: async () => void (await container.stop()) };
  } catch {
    return undefined;
  }
}

const asArguments = (settings: readonly string[]) =>
  settings.flatMap((setting) => ["-c", setting]);

async function startBinaries(
  settings: readonly string[],
  parent: string,
): Promise<TestServer | undefined> {
  const binaries = findBinaries();
  if (binaries === undefined) return undefined;
  // Postgres refuses to run as root; then an unprivileged user owns the data.
  const owner = process.getuid?.() === 0 ? unprivilegedUser() : undefined;
  const directory = mkdtempSync(join(parent, "flowfabric-postgres-"));
  if (owner !== undefined) {
    chownSync(directory, owner.uid, owner.gid);
    chmodSync(directory, 0o700);
  }
  const data = join(directory, "data");
  const run = { ...owner, cwd: directory };
  try {
    execFileSync(
      join(binaries, "initdb"),
      ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
      { ...run, stdio: "ignore" },
    );
    const port = await freePort();
    const address = [
      "listen_addresses=127.0.0.1",
      `port=${port}`,
      "unix_socket_directories=",
    ];
    const server = spawn(
      join(binaries, "postgres"),
      ["-D", data, ...asArguments([...address, ...settings])],
      { ...run, stdio: "ignore" },
    );
    // Also where the run is broken off: the process goes with its parent.
    const kill = () => void server.kill("SIGQUIT");
    process.once("exit", kill);
    const stop = async () => {
      process.off("exit", kill);
      await stopProcess(server);
      rmSync(directory, { recursive: true, force: true });
    };
    const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
    try {
      await answering(url);
    } catch (error) {
      await stop();
      throw error;
    }
    return { url, stop };
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}

function findBinaries(): string | undefined {
  const packaged = "/usr/lib/postgresql";
  const majors = existsSync(packaged)
    ? readdirSync(packaged).sort((a, b) => Number(b) - Number(a))
    : [];
  return [
    ...(process.env["PATH"] ?? "").split(delimiter),
    ...majors.map((major) => join(packaged, major, "bin")),
  ].find(
    (directory) =>
      existsSync(join(directory, "initdb")) &&
      existsSync(join(directory, "postgres")),
  );
}

function unprivilegedUser(): { uid: number; gid: number } {
  const idOf = (flag: string) =>
    Number(execFileSync("id", [flag, "nobody"], { encoding: "utf8" }));
  return { uid: idOf("-u"), gid: idOf("-g") };
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) =>
    probe.listen(0, "127.0.0.1", () => resolve()),
  );
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  if (address === null || typeof address === "string")
    throw new Error("no free port");
  return address.port;
}

async function answering(url: string): Promise<void> {
  const endsAtMs = performance.now() + START_MS_MAX;
  for (;;) {
    const client = new pg.Client({ connectionString: url });
    client.on("error", () => {});
    try {
      await client.connect();
      await client.query("SELECT 1");
      return;
    } catch (error) {
      if (performance.now() > endsAtMs) throw error;
      await pause(50);
    } finally {
      await client.end().catch(() => {});
    }
  }
}

async function stopProcess(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null) return;
  const ended = new Promise((resolve) => server.once("exit", resolve));
  // Immediate: its data goes anyway.
  server.kill("SIGQUIT");
  await ended;
}
