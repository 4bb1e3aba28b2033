/** The demo's own store and its folder. */
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import type { EngineBackend } from "@flowfabric/core";

import { RefusedError } from "../errors.js";
import { openStore } from "../open.js";
import { isDemoLane } from "./definition.js";

/** Opens the store at `path`, empty where it is to be `fresh`. */
export async function openDemoStore(
  path: string,
  fresh: boolean,
): Promise<EngineBackend> {
  const folder = dirname(path);
  mkdirSync(folder, { recursive: true });
  // The default folder lies in somebody's repository and has no business in its history.
  if (folder.endsWith(".flowfabric"))
    writeFileSync(join(folder, ".gitignore"), "*\n");
  if (fresh && existsSync(path)) await removeDemoStore(path);
  return openStore(path, { create: true });
}

/** Only a store that holds nothing but demos: `--db` may name any file. */
async function removeDemoStore(path: string): Promise<void> {
  const strangers = await lanesOfOthers(path);
  if (strangers.length > 0)
    throw new RefusedError(
      `--fresh would delete ${path}, which also holds the ${strangers.length === 1 ? "lane" : "lanes"} ${strangers.join(", ")}; give the demo a --db of its own`,
    );
  for (const suffix of ["", "-wal", "-shm"])
    rmSync(`${path}${suffix}`, { force: true });
}

async function lanesOfOthers(path: string): Promise<string[]> {
  await using backend = await openStore(path, { create: false });
  const { lanes } = await backend.listLanes({});
  return lanes.filter((lane) => !isDemoLane(lane));
}
