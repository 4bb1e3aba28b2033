// Joins lua/lib and lua/functions into the one library that the Valkey store loads, as a module of its package.
//
// While a library loads the server offers no globals, so every file of lib fills a table of its own name, which is a local
// of the whole chunk: files may name each other in any order. The library's version is the hash of its text. It is part of
// every function's name, because the names are the server's, not the library's: two versions live side by side.

import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./repository.mjs";

const target = join(root, "packages/valkey/src/generated/library.ts");

/**
 * @param {string} folder below lua
 * @returns {{ name: string, text: string }[]}
 */
function sources(folder) {
  const directory = join(root, "lua", folder);
  return readdirSync(directory)
    .filter((file) => file.endsWith(".lua"))
    .sort()
    .map((file) => ({
      name: basename(file, ".lua"),
      text: readFileSync(join(directory, file), "utf8"),
    }));
}

/**
 * Comments and indentation are for readers; the server keeps and replicates every byte.
 *
 * @param {string} text
 */
function lean(text) {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("--"))
    .join("\n");
}

/** @param {{ text: string }} source in a scope of its own: a chunk may have 200 locals, and two files the same name */
function scoped({ text }) {
  return `do\n${lean(text)}\nend`;
}

/** The library but for its first lines, which need the version. */
function libraryBody() {
  const libraries = sources("lib");
  return [
    `local ${libraries.map(({ name }) => name).join(", ")} = ${libraries.map(() => "{}").join(", ")}`,
    ...libraries.map(scoped),
    ...sources("functions").map(scoped),
    REGISTER,
  ].join("\n");
}

const REGISTER = `for i = 1, #operation.ALL do
local each = operation.ALL[i]
redis.register_function{function_name=VERSION..'_'..each.name,callback=each.run,flags=each.flags}
end`;

/** Writes the module where it is not up to date. */
export function buildLua() {
  const body = libraryBody();
  const version = `ff_${createHash("sha256").update(body).digest("hex").slice(0, 12)}`;
  const testClock = sources("test").map(scoped).join("\n");
  const module = `// Written by scripts/build-lua.mjs from the folder lua; changes belong there.

/** Begins every function's name: the hash of the library's text. */
export const VERSION = ${JSON.stringify(version)};

/** The library but for its first lines, see library.ts. */
export const BODY = ${JSON.stringify(body)};

/** What tests put behind it: a clock with an offset. */
export const TEST_CLOCK = ${JSON.stringify(testClock)};
`;
  if (existsSync(target) && readFileSync(target, "utf8") === module) return;
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, module);
  console.log(`Wrote ${target.slice(root.length + 1)}`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) buildLua();
