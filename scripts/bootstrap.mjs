// Makes a clone ready to run: dependencies, generated code, build. Every command of the root package.json starts with
// it, so that a fresh clone needs no other step. Where there is nothing to do it takes a fraction of a second.

import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { buildMigrations } from "./build-migrations.mjs";
import {
  isProgram,
  root,
  run,
  runNode,
  seconds,
  tool,
  workspaces,
} from "./repository.mjs";

const OLDEST_NODE_MAJOR = 20;

const stampFile = join(root, "node_modules", ".flowfabric-installed");

export async function bootstrap() {
  await prepare();
  await build();
}

/** All but the build, for what builds by itself. */
export async function prepare() {
  checkNode();
  await install();
  buildMigrations();
}

function checkNode() {
  const major = Number(process.versions.node.split(".")[0]);
  if (major >= OLDEST_NODE_MAJOR) return;
  fail(
    `FlowFabric needs Node ${OLDEST_NODE_MAJOR} or newer; this is ${process.version} (${process.execPath}).`,
  );
}

/**
 * What must be equal for the installed dependencies to fit: the lockfile, and the ABI that better-sqlite3 is compiled for.
 */
function installStamp() {
  const lockfile = readFileSync(join(root, "package-lock.json"));
  const hash = createHash("sha256").update(lockfile).digest("hex");
  return `${hash} ${process.platform}-${process.arch} abi-${process.versions.modules}\n`;
}

/** Remembers that the dependencies are those of the lockfile. npm calls it after its own install, too. */
export function stampInstall() {
  writeFileSync(stampFile, installStamp());
}

async function install() {
  const missing = !existsSync(join(root, "node_modules"));
  if (
    !missing &&
    existsSync(stampFile) &&
    readFileSync(stampFile, "utf8") === installStamp()
  ) {
    return;
  }

  say(
    `${missing ? "Installing the dependencies" : "Dependencies or Node changed, installing again"} (npm ci). ` +
      "Where better-sqlite3 finds no ready-made binary it is compiled, which takes about a minute.",
  );
  const start = Date.now();
  const heartbeat = setInterval(
    () => say(`  still installing (${seconds(Date.now() - start)})`),
    20_000,
  );
  const { code } = await run("npm", ["ci", "--no-audit", "--no-fund"], {
    env: compilerSettings(),
    // npm is a .cmd file on Windows, which only a shell can start.
    shell: process.platform === "win32",
  }).finally(() => clearInterval(heartbeat));
  if (code !== 0) {
    fail(
      `npm ci ended with ${code}. Where it could not compile better-sqlite3: that needs python3, make and a C++ compiler.`,
    );
  }
  stampInstall();
}

/**
 * Most installations of Node bring its headers along, and those fit for certain. Without being told, node-gyp fetches them
 * once more, which needs a network that reaches nodejs.org.
 *
 * @returns {Record<string, string>}
 */
function compilerSettings() {
  const prefix = dirname(dirname(process.execPath));
  if (!existsSync(join(prefix, "include/node/node.h"))) return {};
  return { npm_package_config_node_gyp_nodedir: prefix };
}

async function build() {
  const projects = workspaces().map(({ directory }) => directory);
  const start = Date.now();
  const { code, output } = await runNode(
    [tool("typescript", "tsc"), "--build", ...projects],
    { capture: true },
  );
  if (code !== 0) {
    process.stderr.write(output);
    fail("The build (tsc --build) found the errors above.");
  }
  const took = Date.now() - start;
  if (took > 1_000) say(`Built the packages (${seconds(took)})`);
}

/** @param {string} line */
function say(line) {
  console.log(line);
}

/**
 * @param {string} line
 * @returns {never}
 */
function fail(line) {
  console.error(line);
  process.exit(1);
}

if (isProgram(import.meta.url)) {
  if (process.argv[2] === "--stamp") stampInstall();
  else await bootstrap();
}
