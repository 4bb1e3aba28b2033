// Makes a clone ready to run: dependencies, generated code, build. Every command of the root package.json starts with
// it, so that a fresh clone needs no other step. Where there is nothing to do it takes a fraction of a second.

import { createHash } from "node:crypto";
import {
  existsSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { buildLua } from "./build-lua.mjs";
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

/** From here on better-sqlite3 13 is used: see {@link useNewerDriver}. */
const NEWER_DRIVER_NODE_MAJOR = 22;

const nodeMajor = Number(process.versions.node.split(".")[0]);
const newerDriver = nodeMajor >= NEWER_DRIVER_NODE_MAJOR;

const newerDriverDirectory = join(root, "scripts/newer-node");

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
  buildLua();
}

function checkNode() {
  if (nodeMajor >= OLDEST_NODE_MAJOR) return;
  fail(
    `FlowFabric needs Node ${OLDEST_NODE_MAJOR} or newer; this is ${process.version} (${process.execPath}).`,
  );
}

/**
 * What must be equal for the installed dependencies to fit: the lockfiles, and the ABI that better-sqlite3 is compiled for.
 */
function installStamp() {
  const hash = createHash("sha256");
  hash.update(readFileSync(join(root, "package-lock.json")));
  hash.update(readFileSync(join(newerDriverDirectory, "package-lock.json")));
  return `${hash.digest("hex")} ${process.platform}-${process.arch} abi-${process.versions.modules}\n`;
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
    `${missing ? "Installing the dependencies" : "Dependencies or Node changed, installing again"} (npm ci).` +
      (newerDriver
        ? ""
        : " Where better-sqlite3 finds no ready-made binary it is compiled, which takes about a minute."),
  );
  const start = Date.now();
  const heartbeat = setInterval(
    () => say(`  still installing (${seconds(Date.now() - start)})`),
    20_000,
  );
  // The only script is better-sqlite3's, which compiles what is going to be replaced.
  const code = await npmCi(root, newerDriver ? ["--ignore-scripts"] : []);
  clearInterval(heartbeat);
  if (code !== 0) {
    fail(
      `npm ci ended with ${code}. Where it could not compile better-sqlite3: that needs python3, make and a C++ compiler.`,
    );
  }
  await finishInstall();
}

/**
 * What belongs to an installation besides `npm ci`. npm calls it after an install of its own (`postinstall`), so that
 * `npm ci && npm test` does not install twice.
 */
async function finishInstall() {
  if (newerDriver) await useNewerDriver();
  writeFileSync(stampFile, installStamp());
}

/**
 * Puts better-sqlite3 13 in the place of 12, which the lockfile has for Node 20.
 *
 * 12 wraps its objects with a class of Node's headers that, in those of the newer Node lines, removes an environment hook
 * in its destructor. Collected while no JavaScript runs, a statement then ends the process: "Assertion failed: (env) !=
 * nullptr", seen on Node 24.21 after seconds of the conformance suite. 13 is built on Node-API, brings its binaries in the
 * package, and needs Node 22. npm cannot choose a version by the version of Node, hence this.
 */
async function useNewerDriver() {
  const code = await npmCi(newerDriverDirectory, ["--ignore-scripts"]);
  if (code !== 0) fail(`npm ci in scripts/newer-node ended with ${code}.`);
  const target = join(root, "node_modules/better-sqlite3");
  rmSync(target, { recursive: true, force: true });
  renameSync(join(newerDriverDirectory, "node_modules/better-sqlite3"), target);
  rmSync(join(newerDriverDirectory, "node_modules"), { recursive: true });
}

/**
 * @param {string} directory
 * @param {readonly string[]} options
 * @returns {Promise<number>} the exit code
 */
async function npmCi(directory, options) {
  const { code } = await run(
    "npm",
    ["ci", "--no-audit", "--no-fund", ...options],
    {
      cwd: directory,
      env: compilerSettings(),
      // npm is a .cmd file on Windows, which only a shell can start.
      shell: process.platform === "win32",
    },
  );
  return code;
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
  if (process.argv[2] === "--installed") await finishInstall();
  else await bootstrap();
}
