import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Worker } from "@flowfabric/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";

import { loadHandlers } from "../src/handlers-module.js";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "flowfabric-handlers-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** What a module with this source would have a worker handle. */
async function load(name: string, source: string) {
  const path = join(folder, name);
  writeFileSync(path, source);
  const { lanes, kinds, register } = await loadHandlers(path);
  const handled: unknown[] = [];
  const worker = {
    handle: (target: string | { kind: string }) => {
      handled.push(typeof target === "string" ? target : target.kind);
    },
  };
  await register(worker as unknown as Worker);
  return { lanes, kinds, handled };
}

const DEFINITION = `{ kind: "typed", input: {}, laneId: "images", "~flowfabric": "definition" }`;

test("a function gets the worker", async () => {
  const source = `export default (worker) => { worker.handle("a", () => 1); };`;
  expect(await load("function.mjs", source)).toEqual({
    lanes: [],
    kinds: [],
    handled: ["a"],
  });
});

test("entries name their kinds, and definitions their lanes", async () => {
  const source = `export default [{ definition: ${DEFINITION}, handler() {} }, { kind: "plain", handler() {} }];`;
  expect(await load("array.mjs", source)).toEqual({
    lanes: ["images", "default"],
    kinds: ["typed", "plain"],
    handled: ["typed", "plain"],
  });
});

test("one entry, or an object of them, will do", async () => {
  const one = `export default { kind: "one", handler() {} };`;
  expect((await load("one.mjs", one)).handled).toEqual(["one"]);
  const object = `export default { a: { kind: "x", handler() {} }, b: { kind: "y", handler() {} } };`;
  expect((await load("object.mjs", object)).handled).toEqual(["x", "y"]);
});

test("anything else is refused with what it should be", async () => {
  await expect(load("number.mjs", "export default 1;")).rejects.toThrow(
    /no default export that names handlers/,
  );
  await expect(
    load("entry.mjs", `export default [{ kind: "a" }];`),
  ).rejects.toThrow(/entry 1 .* is no handler/);
  await expect(load("broken.mjs", "export default (")).rejects.toThrow(
    /cannot load/,
  );
});
