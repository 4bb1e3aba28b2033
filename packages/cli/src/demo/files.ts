/** Which files the demo works on. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join, relative, sep } from "node:path";

import { sha256 } from "./analyse.js";

export interface TextFile {
  /** Below the folder, with forward slashes on every system, because it is part of the idempotency key. */
  readonly path: string;
  readonly sha256: string;
}

export interface FoundFiles {
  readonly files: readonly TextFile[];
  readonly binary: number;
  readonly tooLarge: number;
  /** Text files beyond the limit. */
  readonly beyondLimit: number;
}

const MAX_FILE_BYTES = 1_048_576;

/** Neither written by people nor worth their time. */
const SKIPPED_FOLDERS = new Set([
  "node_modules",
  "dist",
  ".git",
  ".flowfabric",
  ".turbo",
  "coverage",
]);

/** As git does it: a zero byte this early means binary. */
const SNIFFED_BYTES = 8_000;

/** Text files below a folder in path order. Links are not followed, files that cannot be read are left out. */
export async function findTextFiles(
  folder: string,
  limit: number,
): Promise<FoundFiles> {
  const files: TextFile[] = [];
  const counts = { binary: 0, tooLarge: 0, beyondLimit: 0 };
  for await (const file of walk(folder)) {
    const { size } = await stat(file).catch(() => ({ size: -1 }));
    if (size > MAX_FILE_BYTES) counts.tooLarge++;
    else if (files.length >= limit) counts.beyondLimit++;
    else {
      const bytes = await readFile(file).catch(() => undefined);
      if (bytes === undefined) continue;
      if (!isText(bytes)) counts.binary++;
      else
        files.push({
          path: relative(folder, file).split(sep).join("/"),
          sha256: sha256(bytes),
        });
    }
  }
  return { files, ...counts };
}

async function* walk(folder: string): AsyncGenerator<string> {
  const entries = await readdir(folder, { withFileTypes: true });
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (!SKIPPED_FOLDERS.has(entry.name)) yield* walk(path);
    } else if (entry.isFile()) yield path;
  }
}

export function isText(bytes: Uint8Array): boolean {
  if (bytes.subarray(0, SNIFFED_BYTES).includes(0)) return false;
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}
