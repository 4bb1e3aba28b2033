// Makes bench/peers ready to run: what FlowFabric is compared with, and a Node that all of it runs on. Nobody who tries,
// tests or builds this repository installs any of that, so it is a package of its own, outside the workspaces.

import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { bootstrap } from "./bootstrap.mjs";
import { readManifest, root, run, runNode, tool } from "./repository.mjs";

const directory = join(root, "bench/peers");
const modules = join(directory, "node_modules");
const stampFile = join(modules, ".flowfabric-installed");

/** Some peers start nowhere below it. */
const OLDEST_NODE = [22, 18];

/** What is measured, and what measures. */
const OWN = [
  "packages/core",
  "packages/sdk",
  "packages/sqlite",
  "packages/postgres",
  "packages/valkey",
  "bench",
];

/** @returns {Promise<string>} the Node to run it with */
export async function preparePeers() {
  await bootstrap();
  await install();
  copyOwn();
  const { code, output } = await runNode(
    [tool("typescript", "tsc"), "--build", directory],
    { capture: true },
  );
  if (code !== 0)
    throw new Error(`The build of bench/peers failed.\n${output}`);
  return isNewEnough() ? process.execPath : packagedNode();
}

/** @returns {Promise<string[]>} what its build says, with the peers installed: they have the types */
export async function checkPeers() {
  try {
    await preparePeers();
    return [];
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)];
  }
}

async function install() {
  const stamp = createHash("sha256")
    .update(readFileSync(join(directory, "package-lock.json")))
    .update(`${process.platform}-${process.arch}`)
    .digest("hex");
  if (existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp)
    return;
  console.log("Installing what FlowFabric is compared with (npm ci).");
  const { code, output } = await run(
    "npm",
    [
      "ci",
      "--no-audit",
      "--no-fund",
      // Nothing has to be compiled: better-sqlite3 13 brings its binaries, and the others do without theirs.
      "--ignore-scripts",
      // Of peers that want a newer Node than npm runs on.
      "--loglevel=error",
    ],
    { cwd: directory, capture: true, shell: process.platform === "win32" },
  );
  if (code !== 0)
    throw new Error(`npm ci in bench/peers ended with ${code}.\n${output}`);
  writeFileSync(stampFile, stamp);
}

/**
 * Our own packages, as a user has them: copies among the others. They find the drivers there, which are compiled for the Node
 * that runs them, rather than those of the workspace.
 */
function copyOwn() {
  for (const workspace of OWN) {
    const target = join(modules, readManifest(workspace).name);
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target, { recursive: true });
    for (const part of ["package.json", "dist"])
      cpSync(join(root, workspace, part), join(target, part), {
        recursive: true,
      });
  }
}

function isNewEnough() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const [oldestMajor = 0, oldestMinor = 0] = OLDEST_NODE;
  return major > oldestMajor || (major === oldestMajor && minor >= oldestMinor);
}

function packagedNode() {
  const name = `node-${process.platform}-${process.arch}`;
  const program = join(modules, name, "bin/node");
  if (existsSync(program)) return program;
  throw new Error(
    `The peers need Node ${OLDEST_NODE.join(".")} or newer; this is ${process.version}, and the registry has none for ${process.platform}-${process.arch}.`,
  );
}
