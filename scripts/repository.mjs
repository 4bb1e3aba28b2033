// What every script here needs: where the repository is, its workspaces, and a way to run a program and wait for it.
// Node built-ins only, for it is loaded before anything is installed.

import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * @typedef {object} Manifest
 * @property {string} name
 * @property {string} version
 * @property {boolean} [private]
 * @property {string[]} [workspaces]
 * @property {Record<string, string> | string} [bin]
 * @property {Record<string, unknown>} [exports]
 */

/**
 * @param {string} directory below the root
 * @returns {Manifest}
 */
export function readManifest(directory) {
  return JSON.parse(
    readFileSync(join(root, directory, "package.json"), "utf8"),
  );
}

/**
 * Every workspace, in the order of the root manifest's patterns.
 *
 * @returns {{ directory: string, manifest: Manifest }[]}
 */
export function workspaces() {
  return (readManifest(".").workspaces ?? [])
    .flatMap((pattern) =>
      pattern.endsWith("/*") ? subdirectories(pattern.slice(0, -2)) : [pattern],
    )
    .filter((directory) => existsSync(join(root, directory, "package.json")))
    .map((directory) => ({ directory, manifest: readManifest(directory) }));
}

/**
 * @param {string} directory below the root
 * @returns {string[]} its subdirectories, below the root too; none where it does not exist
 */
export function subdirectories(directory) {
  if (!existsSync(join(root, directory))) return [];
  return readdirSync(join(root, directory), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => `${directory}/${entry.name}`)
    .sort();
}

/**
 * The script behind an installed command. Starting it with this very Node rather than through `.bin` keeps Windows, and
 * a Node that is not the first on the PATH, out of trouble.
 *
 * @param {string} packageName
 * @param {string} [command]
 * @returns {string}
 */
export function tool(packageName, command = packageName) {
  const { bin } = readManifest(`node_modules/${packageName}`);
  const script = typeof bin === "string" ? bin : bin?.[command];
  if (script === undefined)
    throw new Error(`${packageName} has no command ${command}`);
  return join(root, "node_modules", packageName, script);
}

/**
 * @typedef {object} Outcome
 * @property {number} code the exit code; 128 + the signal's number where a signal ended it, as shells have it
 * @property {string} output what it printed, where that was captured
 */

/**
 * Runs a program to its end. It shares our terminal unless its output is captured.
 *
 * Signals to end are passed on and then waited for, so that no child outlives us and its exit code becomes ours. Ctrl-C
 * is the exception: a terminal sends it to the whole group already, and a child that sees it twice may take the second
 * for "now without cleaning up".
 *
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ capture?: boolean, env?: Record<string, string>, cwd?: string, shell?: boolean }} [options]
 * @returns {Promise<Outcome>}
 */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: options.cwd ?? root,
      env: { ...process.env, ...options.env },
      stdio: options.capture ? ["ignore", "pipe", "pipe"] : "inherit",
      shell: options.shell ?? false,
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text) => (output += text));
    }

    const pass = (/** @type {NodeJS.Signals} */ signal) => {
      if (signal === "SIGINT" && process.stdin.isTTY) return;
      child.kill(signal);
    };
    /** @type {NodeJS.Signals[]} */
    const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
    for (const signal of signals) process.on(signal, pass);
    const stopPassing = () => {
      for (const signal of signals) process.off(signal, pass);
    };

    child.once("error", (error) => {
      stopPassing();
      reject(error);
    });
    child.once("close", (code, signal) => {
      stopPassing();
      resolve({
        code: code ?? 128 + constants.signals[signal ?? "SIGKILL"],
        output,
      });
    });
  });
}

/**
 * Runs a script with this Node.
 *
 * @param {readonly string[]} args
 * @param {Parameters<typeof run>[2]} [options]
 */
export function runNode(args, options) {
  return run(process.execPath, args, options);
}

/** @param {number} ms */
export function seconds(ms) {
  return `${(ms / 1000).toFixed(1)} s`;
}

/**
 * Whether a module is the program that was started, not imported by another.
 *
 * @param {string} moduleUrl its `import.meta.url`
 */
export function isProgram(moduleUrl) {
  const program = process.argv[1];
  return (
    program !== undefined &&
    realpathSync(program) === realpathSync(fileURLToPath(moduleUrl))
  );
}
