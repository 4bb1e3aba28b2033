/** What figures depend on and readers must know. */
import {
  closeSync,
  fdatasyncSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from "node:fs";
import { createRequire } from "node:module";
import {
  availableParallelism,
  cpus,
  loadavg,
  release,
  totalmem,
  type,
} from "node:os";
import { join } from "node:path";

import SqliteDriver from "better-sqlite3";

import { median } from "./statistics.js";

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  /** Of the last minute, as it began: what else had to be done. */
  readonly load: number;
  readonly memoryGiB: number;
  readonly os: string;
  readonly disk: string;
  /** One durable 4 KiB append, median: what a commit at FULL costs at least. */
  readonly syncMs: number;
  readonly node: string;
  readonly sqlite: string;
  readonly driver: string;
}

export function describeMachine(directory: string): Machine {
  const memory = new SqliteDriver(":memory:");
  const sqlite = memory
    .prepare<[], string>("SELECT sqlite_version()")
    .pluck()
    .get()!;
  memory.close();
  const driver = createRequire(import.meta.url)(
    "better-sqlite3/package.json",
  ) as { version: string };
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    load: loadavg()[0]!,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    os: `${type()} ${release()}`,
    disk: describeDisk(directory),
    syncMs: measureSync(directory),
    node: process.version,
    sqlite,
    driver: `better-sqlite3 ${driver.version}`,
  };
}

export function machineLines(machine: Machine): string[] {
  return [
    `${machine.cpu}, ${machine.cores} cores at load ${machine.load.toFixed(1)}, ${machine.memoryGiB} GiB; ${machine.os}`,
    `disk: ${machine.disk}; a durable 4 KiB append takes ${machine.syncMs.toFixed(3)} ms`,
    `Node ${machine.node}, SQLite ${machine.sqlite}, ${machine.driver}`,
  ];
}

const TMPFS = 0x01021994;

/** Linux tells cheaply; elsewhere the sync time has to do. */
function describeDisk(directory: string): string {
  try {
    if (statfsSync(directory).type === TMPFS)
      return "tmpfs (memory: FULL costs nothing here)";
    const { dev } = statSync(directory);
    const block = `/sys/dev/block/${dev >> 8}:${dev & 0xff}`;
    // A partition has no queue of its own; its disk stands one level up.
    const queue = readdirSync(block).includes("queue")
      ? `${block}/queue`
      : `${block}/../queue`;
    const name =
      /DEVNAME=(.*)/.exec(readFileSync(`${block}/uevent`, "utf8"))?.[1] ??
      "unnamed";
    // What stands behind a virtual disk only its host knows.
    if (/^x?vd/.test(name)) return `${name} (virtual)`;
    const rotates = readFileSync(`${queue}/rotational`, "utf8").trim() === "1";
    return `${name} (${rotates ? "rotating" : "solid state"})`;
  } catch {
    return "kind unknown";
  }
}

function measureSync(directory: string): number {
  const own = mkdtempSync(join(directory, "flowfabric-bench-"));
  try {
    const file = openSync(join(own, "sync"), "w");
    const page = Buffer.alloc(4_096, 1);
    const tookMs = Array.from({ length: 50 }, () => {
      const startMs = performance.now();
      writeSync(file, page);
      fdatasyncSync(file);
      return performance.now() - startMs;
    });
    closeSync(file);
    return median(tookMs);
  } finally {
    rmSync(own, { recursive: true });
  }
}
