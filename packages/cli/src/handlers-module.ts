/**
 * The module that `flowfabric worker` runs. Its default export is one of
 * - a function that gets the worker and calls `worker.handle(…)`,
 * - an entry `{ definition, handler }` or `{ kind, handler }`,
 * - an array of entries, or an object whose values are entries.
 */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

import type { ExecutionDefinition, Handler, Worker } from "@flowfabric/sdk";

import { RefusedError, UsageError } from "./errors.js";

export interface LoadedHandlers {
  /** The lanes that the module's definitions name; empty where it cannot be known. */
  readonly lanes: readonly string[];
  /** What it handles, where it can be known. */
  readonly kinds: readonly string[];
  register(worker: Worker): Promise<void>;
}

type Entry =
  | {
      readonly definition: ExecutionDefinition;
      readonly handler: Handler<unknown, unknown>;
    }
  | { readonly kind: string; readonly handler: Handler<Uint8Array, unknown> };

const SHAPES =
  "a function (worker) => void, or { definition, handler } or { kind, handler }, one or many";

export async function loadHandlers(module: string): Promise<LoadedHandlers> {
  const path = resolve(module);
  if (!existsSync(path))
    throw new UsageError(`there is no handlers module at ${path}`);
  const loaded = await importModule(path, module);
  const exported = loaded["default"];
  if (typeof exported === "function")
    return {
      lanes: [],
      kinds: [],
      register: async (worker) => {
        await (exported as (worker: Worker) => unknown)(worker);
      },
    };
  const entries = entriesOf(exported, module);
  return {
    lanes: [...new Set(entries.map(laneOf))],
    kinds: entries.map(kindOf),
    register: async (worker) => {
      for (const entry of entries) {
        if ("definition" in entry)
          worker.handle(entry.definition, entry.handler);
        else worker.handle(entry.kind, entry.handler);
      }
    },
  };
}

async function importModule(
  path: string,
  module: string,
): Promise<Record<string, unknown>> {
  try {
    return (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  } catch (error) {
    const hint = /\.[mc]?tsx?$/.test(path)
      ? "; this Node runs TypeScript only from 22.18 on, else build it first"
      : "";
    throw new RefusedError(
      `cannot load ${module}: ${error instanceof Error ? error.message : String(error)}${hint}`,
      { cause: error },
    );
  }
}

function entriesOf(exported: unknown, module: string): Entry[] {
  if (isEntry(exported)) return [exported];
  const values: unknown[] =
    typeof exported === "object" && exported !== null
      ? Object.values(exported)
      : [];
  if (values.length === 0)
    throw new RefusedError(
      `${module} has no default export that names handlers; export ${SHAPES}`,
    );
  return values.map((value, at) => {
    if (isEntry(value)) return value;
    throw new RefusedError(
      `entry ${at + 1} of ${module}'s default export is no handler; export ${SHAPES}`,
    );
  });
}

function isEntry(value: unknown): value is Entry {
  if (typeof value !== "object" || value === null) return false;
  const { definition, kind, handler } = value as Record<string, unknown>;
  const named =
    typeof kind === "string" ||
    (typeof definition === "object" &&
      definition !== null &&
      "kind" in definition &&
      "input" in definition);
  return named && typeof handler === "function";
}

function kindOf(entry: Entry): string {
  return "definition" in entry ? entry.definition.kind : entry.kind;
}

function laneOf(entry: Entry): string {
  return (
    ("definition" in entry ? entry.definition.laneId : undefined) ?? "default"
  );
}
