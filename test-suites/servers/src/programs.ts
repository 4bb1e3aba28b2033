/** Where server programs come from: the machine, else an archive, unpacked into a cache beside the system. */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { delimiter, join } from "node:path";

/** Survives runs; `npm ci` empties it. */
const CACHE = join(
  import.meta.dirname,
  "../../../node_modules/.cache/flowfabric",
);

/** A download on a slow line. */
export const FETCH_MS_MAX = 300_000;

/** Programs, and what they cannot start without. */
export interface ProgramFolder {
  readonly directory: string;
  /** From there, the folder of libraries that came with them. */
  readonly libraries?: string;
}

/** The folder that holds all of `programs`: one of PATH, else one of `more`. */
export function findProgram(
  programs: readonly string[],
  more: readonly string[] = [],
): string | undefined {
  return [...(process.env["PATH"] ?? "").split(delimiter), ...more].find(
    (directory) =>
      directory !== "" &&
      programs.every((program) => existsSync(join(directory, program))),
  );
}

/** A folder of the cache, filled by `fill` where it is not there; never half filled. */
export function cached(
  name: string,
  fill: (directory: string) => void,
): string {
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

export interface DebianPackages {
  /** Of the folder in the cache. */
  readonly name: string;
  /** With the libraries that a small system may lack. */
  readonly packages: readonly string[];
  /** Below the root of a system, where the packages have put the programs. */
  readonly directory: string;
  /** Suites of Debian's archive that are asked; the system's own sources where there are none. */
  readonly suites?: readonly string[];
  /** Last steps in the unpacked folder. */
  readonly finish?: (directory: string) => void;
}

/**
 * Packages of Debian's archive, unpacked beside the system rather than installed: that would start a service on a port of
 * its own choice.
 */
export function fetchDebianPackages({
  name,
  packages,
  directory,
  suites,
  finish = () => {},
}: DebianPackages): ProgramFolder {
  const root = cached(name, (scratch) => {
    download(scratch, packages, suites);
    for (const file of readdirSync(scratch).filter((name) =>
      name.endsWith(".deb"),
    )) {
      execFileSync("dpkg", ["-x", file, "."], { cwd: scratch });
      rmSync(join(scratch, file));
    }
    finish(join(scratch, directory));
  });
  const libraries = join(root, "usr/lib");
  const architecture = existsSync(libraries)
    ? readdirSync(libraries).find((name) => name.includes("-linux-"))
    : undefined;
  return {
    directory: join(root, directory),
    ...(architecture === undefined
      ? {}
      : { libraries: `../lib/${architecture}` }),
  };
}

function download(
  directory: string,
  packages: readonly string[],
  suites: readonly string[] | undefined,
): void {
  const run = (args: readonly string[]) =>
    execFileSync("apt-get", ["-q", ...args], {
      cwd: directory,
      stdio: ["ignore", "ignore", "pipe"],
      timeout: FETCH_MS_MAX,
    });
  if (suites === undefined) {
    try {
      run(["download", ...packages]);
      return;
    } catch {
      // No package lists, as in a fresh container, or old ones.
    }
  }
  // Lists of our own; the system's stay as they are.
  const state = join(directory, "apt");
  mkdirSync(join(state, "lists/partial"), { recursive: true });
  mkdirSync(join(state, "cache/archives/partial"), { recursive: true });
  const own = [
    `Dir::State::lists=${join(state, "lists")}`,
    `Dir::Cache=${join(state, "cache")}`,
    "APT::Sandbox::User=root",
    // What is installed is newer on a newer system, and would be asked for.
    "Dir::State::status=/dev/null",
    // Else an archive out of reach is a warning, and the packages are what could not be found.
    "APT::Update::Error-Mode=any",
    ...(suites === undefined ? [] : ownSources(state, suites)),
  ].flatMap((setting) => ["-o", setting]);
  run([...own, "update"]);
  run([...own, "download", ...packages]);
  rmSync(state, { recursive: true, force: true });
}

/** Read instead of the system's, which may know nothing of these suites. */
function ownSources(
  directory: string,
  suites: readonly string[],
): readonly string[] {
  const list = join(directory, "sources.list");
  writeFileSync(
    list,
    suites
      .map(
        (suite) =>
          `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian ${suite} main\n`,
      )
      .join(""),
  );
  const none = join(directory, "sources.list.d");
  mkdirSync(none);
  return [`Dir::Etc::sourcelist=${list}`, `Dir::Etc::sourceparts=${none}`];
}
