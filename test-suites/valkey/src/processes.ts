/** Servers that run here, started from their programs: each in a folder and on a loopback port of its own. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import {
  freePort,
  Workplace,
  type ProgramFolder,
  type StartedProgram,
  type TestServer,
  type Way,
} from "@flowfabric/test-servers";

import { answering } from "./clients.js";
import { fetchProgram, installedProgram, type Product } from "./products.js";

/** Lines of the server's configuration: name, and what stands behind it there. */
export type Settings = Readonly<Record<string, string>>;

/** For data that is thrown away. */
export const QUICK: Settings = { save: '""', appendonly: "no" };

/** Loses nothing that it answered, however it ends; where it syncs less often, a busy disk can hold back the log for seconds. */
export const DURABLE: Settings = {
  save: '""',
  appendonly: "yes",
  appendfsync: "always",
};

/** For servers with replicas. */
export const REPLICATING: Settings = {
  "repl-diskless-sync-delay": "0",
  // Valkey 8.0 may crash as a replica that is synced anew: it loads the functions while a thread still frees the old ones.
  "replica-lazy-flush": "no",
};

/**
 * `orderly` lets it write what it has and take leave of its replicas; `crash` ends it by SIGKILL, and the next start reads
 * the log, where there is one.
 */
export type Shutdown = "orderly" | "crash";

const SHUTDOWN_SIGNALS = { orderly: "SIGTERM", crash: "SIGKILL" } as const;

/** Nobody else's, so that it may be shut down; its files stay until {@link TestServer.stop}. */
export interface RestartableServer extends TestServer {
  readonly host: string;
  readonly port: number;
  /** Resolves when it answers. */
  start(): Promise<void>;
  shutDown(shutdown: Shutdown): Promise<void>;
  /** SIGSTOP makes it silent while its connections stay, until SIGCONT. */
  signal(signal: NodeJS.Signals): void;
}

export interface ProcessOptions {
  readonly settings?: Settings;
  readonly directory?: string | undefined;
  /** Chosen by the caller where others have to know it before; else a free one. */
  readonly port?: number;
}

/** The machine's own programs, else fetched ones. */
export function programWays<Server extends TestServer>(
  product: Product,
  start: (programs: ProgramFolder) => Promise<Server>,
): Way<Server>[] {
  return [
    ["this machine's programs", async () => start(installedProgram(product))],
    ["Debian's archive", async () => start(fetchProgram(product))],
  ];
}

export async function startProcess(
  { program }: Product,
  installed: ProgramFolder,
  { settings = QUICK, directory, port: chosen }: ProcessOptions,
): Promise<RestartableServer> {
  const workplace = new Workplace(program.replace("-server", ""), directory);
  try {
    const host = "127.0.0.1";
    const port = chosen ?? (await freePort());
    const programs = workplace.reachable(installed.directory);
    const configuration = workplace.path("server.conf");
    writeFileSync(
      configuration,
      configurationText({
        bind: host,
        port: String(port),
        dir: workplace.directory,
        ...settings,
      }),
    );
    // Who is promoted notes that in it.
    workplace.own(configuration);
    const libraries: Readonly<Record<string, string>> =
      installed.libraries === undefined
        ? {}
        : { LD_LIBRARY_PATH: join(programs, installed.libraries) };
    let server: StartedProgram | undefined;
    const shutDown = async (shutdown: Shutdown) => {
      await server?.stop(SHUTDOWN_SIGNALS[shutdown]);
    };
    const start = async () => {
      const started = workplace.start(
        join(programs, program),
        [configuration],
        libraries,
        "SIGKILL",
      );
      server = started;
      try {
        await answering({ host, port }, () => started.running);
      } catch (error) {
        await shutDown("crash");
        throw new Error(`the server did not start: ${started.lastWords()}`, {
          cause: error,
        });
      }
    };
    await start();
    return {
      url: `${program === "redis-server" ? "redis" : "valkey"}://${host}:${port}`,
      host,
      port,
      start,
      shutDown,
      signal: (signal) => server?.signal(signal),
      async stop() {
        await shutDown("crash");
        workplace.remove();
      },
    };
  } catch (error) {
    workplace.remove();
    throw error;
  }
}

export function configurationText(settings: Settings): string {
  return Object.entries(settings)
    .map(([name, value]) => `${name} ${value}\n`)
    .join("");
}
