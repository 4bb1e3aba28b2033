/** The demo's own store and its folder. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

import type { EngineBackend } from "@flowfabric/core";

import { RefusedError, UsageError } from "../errors.js";
import {
  describeAddress,
  openStore,
  parseAddress,
  storeExists,
  type StoreAddress,
} from "../open.js";
import { removeValkeyStore } from "../valkey.js";
import { isDemoLane } from "./definition.js";

/** On a server that may hold a store with real work the demo keeps apart. */
const NAMES = { schema: "flowfabric_demo", prefix: "ff_demo" };

const FOLDER = ".flowfabric";

export function parseDemoAddress(given: string): StoreAddress {
  const address = parseAddress(given, NAMES);
  if (address.kind === "sqlite" && address.path === ":memory:")
    throw new UsageError(
      "the demo's workers are processes of their own and cannot share :memory:; give --backend a file",
    );
  return address;
}

/** Where the report goes, and the store where it is a file. */
export function demoFolder(address: StoreAddress): string {
  return address.kind === "sqlite" ? dirname(address.path) : resolve(FOLDER);
}

/** Opens the store, empty where it is to be `fresh`. */
export async function openDemoStore(
  address: StoreAddress,
  fresh: boolean,
): Promise<EngineBackend> {
  const folder = demoFolder(address);
  mkdirSync(folder, { recursive: true });
  // The default folder lies in somebody's repository and has no business in its history.
  if (folder.endsWith(FOLDER)) writeFileSync(join(folder, ".gitignore"), "*\n");
  if (fresh && (await storeExists(address))) await removeDemoStore(address);
  return openStore(address, { create: true });
}

/** Only a store that holds nothing but demos: `--backend` may name any. */
async function removeDemoStore(address: StoreAddress): Promise<void> {
  const strangers = await lanesOfOthers(address);
  if (strangers.length > 0)
    throw new RefusedError(
      `--fresh would delete ${describeAddress(address)}, which also holds the ${strangers.length === 1 ? "lane" : "lanes"} ${strangers.join(", ")}; give the demo a --backend of its own`,
    );
  if (address.kind === "postgres") await dropSchema(address);
  else if (address.kind === "valkey") await removeValkeyStore(address);
  else
    for (const suffix of ["", "-wal", "-shm"])
      rmSync(`${address.path}${suffix}`, { force: true });
}

async function lanesOfOthers(address: StoreAddress): Promise<string[]> {
  await using backend = await openStore(address, { create: false });
  const { lanes } = await backend.listLanes({});
  return lanes.filter((lane) => !isDemoLane(lane));
}

async function dropSchema({
  connectionString,
  schema,
}: Extract<StoreAddress, { kind: "postgres" }>): Promise<void> {
  const { default: pg } = await import("pg");
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    // The backend has looked inside a moment ago: the name is a schema's, and the schema is ours.
    await client.query(`DROP SCHEMA "${schema}" CASCADE`);
  } finally {
    await client.end();
  }
}
