// The Lua sources: written as stylua writes them, and every name in them stands for something.
//
// A misspelt name is no fault to the server until the line runs, maybe years later. So what is not declared has to be one
// of the names the server offers, and a field of a library's table has to be defined somewhere.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import * as stylua from "@johnnymorganz/stylua";
import luaparse from "luaparse";
import { isProgram, root } from "./repository.mjs";

const directories = [
  "lua/lib",
  "lua/functions",
  "lua/test",
  "packages/valkey/test",
];

/** What functions find in all supported servers, as far as it is used. */
const offered = new Set(
  "redis cjson cmsgpack struct bit string table math pairs ipairs next select type tonumber tostring unpack error pcall".split(
    " ",
  ),
);

/** The first line of a built library, see packages/valkey/src/library.ts. */
const declaredByBuild = ["VERSION"];

/** @typedef {{ type: string, loc: { start: { line: number } } } & Record<string, unknown>} Node */

/**
 * @param {{ write?: boolean }} [options] write: format the files
 * @returns {string[]}
 */
export function checkLua({ write = false } = {}) {
  /** @type {string[]} */
  const findings = [];
  const sources = directories.flatMap((directory) =>
    readdirSync(join(root, directory))
      .filter((name) => name.endsWith(".lua"))
      .sort()
      .map((name) => `${directory}/${name}`),
  );
  /** @type {{ file: string, nodes: Node[] }[]} */
  const parsed = [];
  for (const file of sources) {
    const text = readFileSync(join(root, file), "utf8");
    try {
      parsed.push({ file, nodes: nodesOf(text) });
      const formatted = format(text);
      if (formatted === text) continue;
      if (write) writeFileSync(join(root, file), formatted);
      else findings.push(`${file} is not formatted: npm run format`);
    } catch (error) {
      findings.push(`${file}: ${String(error)}`);
    }
  }
  // What a file defines is not known before it can be read.
  return parsed.length < sources.length
    ? findings
    : [...findings, ...nameFindings(parsed)];
}

/**
 * @param {readonly { file: string, nodes: Node[] }[]} parsed
 * @returns {string[]}
 */
function nameFindings(parsed) {
  const libraries = new Set([
    ...declaredByBuild,
    ...readdirSync(join(root, "lua/lib")).map((file) => basename(file, ".lua")),
  ]);
  const fields = new Set(
    parsed.flatMap(({ nodes }) => nodes.flatMap(definedBy)),
  );
  return parsed.flatMap(({ file, nodes }) =>
    nodes.flatMap((node) => {
      const where = `${file}:${node.loc.start.line}`;
      if (node.type === "Identifier" && node["isLocal"] === false) {
        const name = String(node["name"]);
        return libraries.has(name) || offered.has(name)
          ? []
          : [`${where}: nobody declares ${name}`];
      }
      const field = fieldOf(node);
      return field === undefined ||
        !libraries.has(field.table) ||
        fields.has(`${field.table}.${field.name}`)
        ? []
        : [`${where}: nobody defines ${field.table}.${field.name}`];
    }),
  );
}

/**
 * @param {Node} node
 * @returns {string[]} the fields that it gives to tables
 */
function definedBy(node) {
  const targets =
    node.type === "FunctionDeclaration"
      ? [node["identifier"]]
      : node.type === "AssignmentStatement"
        ? /** @type {unknown[]} */ (node["variables"])
        : [];
  return targets.flatMap((target) => {
    const field = fieldOf(/** @type {Node | null} */ (target));
    return field === undefined ? [] : [`${field.table}.${field.name}`];
  });
}

/**
 * @param {Node | null} node
 * @returns {{ table: string, name: string } | undefined} of `table.name`, where the table is no local of the file
 */
function fieldOf(node) {
  if (node?.type !== "MemberExpression" || node["indexer"] !== ".")
    return undefined;
  const base = /** @type {Node} */ (node["base"]);
  if (base.type !== "Identifier" || base["isLocal"] !== false) return undefined;
  const { name } = /** @type {{ name: string }} */ (node["identifier"]);
  return { table: String(base["name"]), name };
}

/**
 * @param {string} text
 * @returns {Node[]} those whose names mean something, `isLocal` being known
 */
function nodesOf(text) {
  /** @type {Node[]} */
  const nodes = [];
  luaparse.parse(text, {
    luaVersion: "5.1",
    scope: true,
    locations: true,
    comments: false,
    onCreateNode: (node) =>
      void nodes.push(/** @type {Node} */ (/** @type {unknown} */ (node))),
  });
  // Names of fields are identifiers to the parser too.
  const names = new Set(
    nodes.flatMap((node) =>
      node.type === "MemberExpression"
        ? [node["identifier"]]
        : node.type === "TableKeyString"
          ? [node["key"]]
          : [],
    ),
  );
  return nodes.filter((node) => !names.has(node));
}

/** @param {string} text */
function format(text) {
  // A call uses its configuration up.
  return stylua.formatCode(
    text,
    configuration(),
    undefined,
    stylua.OutputVerification.Full,
  );
}

/** The settings of stylua.toml, which only stylua's own program reads by itself. */
function configuration() {
  const config = stylua.Config.new();
  const settings = readFileSync(join(root, "stylua.toml"), "utf8").matchAll(
    /^(\w+) = (?:"(\w+)"|(\d+))$/gm,
  );
  for (const [, name, choice, number] of settings) {
    const choices = choicesOf[/** @type {keyof typeof choicesOf} */ (name)];
    const value = choice === undefined ? Number(number) : choices?.[choice];
    if (name === undefined || value === undefined || !(name in config))
      throw new Error(`stylua.toml: ${name} cannot be ${choice ?? number}`);
    Object.assign(config, { [name]: value });
  }
  return config;
}

/** @type {Readonly<Record<string, Readonly<Record<string, unknown>>>>} */
const choicesOf = {
  syntax: stylua.LuaVersion,
  line_endings: stylua.LineEndings,
  indent_type: stylua.IndentType,
  quote_style: stylua.QuoteStyle,
  call_parentheses: stylua.CallParenType,
};

if (isProgram(import.meta.url)) {
  const findings = checkLua({ write: process.argv.includes("--write") });
  for (const finding of findings) console.log(finding);
  process.exitCode = findings.length === 0 ? 0 : 1;
}
