/** Valkey and Redis: one protocol and two programs, which come from the same kinds of places. */
import { execFileSync } from "node:child_process";
import { symlinkSync } from "node:fs";
import { join } from "node:path";

import {
  fetchDebianPackages,
  findProgram,
  type ProgramFolder,
} from "@flowfabric/test-servers";

export interface Product {
  readonly name: "Valkey" | "Redis";
  readonly program: string;
  readonly image: string;
  /** A variable of the environment that names a server. */
  readonly variable: string;
  readonly debian: {
    readonly version: string;
    readonly suites: readonly string[];
  };
}

export const VALKEY: Product = {
  name: "Valkey",
  program: "valkey-server",
  image: "valkey/valkey:8",
  variable: "FLOWFABRIC_TEST_VALKEY_URL",
  debian: { version: "8.0", suites: ["bookworm", "bookworm-backports"] },
};

/** The oldest that knows functions. */
export const REDIS: Product = {
  name: "Redis",
  program: "redis-server",
  image: "redis:7.0",
  variable: "FLOWFABRIC_TEST_REDIS_URL",
  debian: { version: "7.0", suites: ["bookworm"] },
};

const OLDEST_MAJOR = 7;

/** @throws where there is none, or another product under this one's name, as some systems have it, or one too old */
export function installedProgram({ name, program }: Product): ProgramFolder {
  const directory = findProgram([program]);
  if (directory === undefined) throw new Error(`found no ${program} in PATH`);
  const told = execFileSync(join(directory, program), ["--version"], {
    encoding: "utf8",
  });
  const [, product, major] = /^(\w+) server v=(\d+)\./.exec(told) ?? [];
  if (product !== name || Number(major) < OLDEST_MAJOR)
    throw new Error(
      `${join(directory, program)} is no ${name} ${OLDEST_MAJOR} or newer: ${told}`,
    );
  return { directory };
}

/** Of the Debian release that it is from, with its libraries, so that other releases run it as well. */
export function fetchProgram({ program, debian }: Product): ProgramFolder {
  const stem = program.replace("-server", "");
  return fetchDebianPackages({
    name: `${stem}-${debian.version}`,
    packages: [
      `${stem}-tools`,
      "libatomic1",
      "libjemalloc2",
      "liblzf1",
      "libssl3",
    ],
    directory: "usr/bin",
    suites: debian.suites,
    // The server and the checkers of its files are one program, which goes by the name it is called by; the package of the
    // server itself only adds the service.
    finish: (directory) =>
      symlinkSync(`${stem}-check-aof`, join(directory, program)),
  });
}
