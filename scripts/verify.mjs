// npm run verify: everything that can be said about the repository without running its tests, the same in CI and at the
// desk. One line for each check; what a check has to say follows only where it fails.

import { prepare } from "./bootstrap.mjs";
import { runNode, seconds, tool } from "./repository.mjs";

await prepare();

// Of these, only what follows `prepare` may import installed packages.
const { checkPeers } = await import("./bench-peers.mjs");
const { checkApi } = await import("./check-api.mjs");
const { checkLineup } = await import("./check-lineup.mjs");
const { checkLockfiles } = await import("./check-lockfiles.mjs");
const { checkLua } = await import("./check-lua.mjs");
const { checkPackages } = await import("./check-packages.mjs");
const { checkQuotes } = await import("./quote-figures.mjs");
const { checkWorkflows } = await import("./check-workflows.mjs");

/**
 * A check answers what is wrong; nothing where all is well.
 *
 * @type {readonly [name: string, check: () => string[] | Promise<string[]>][]}
 */
const checks = [
  // From nothing, so that the checks below see what the sources make, not what an older build left behind.
  ["types", () => program(tool("typescript", "tsc"), "--build", "--force")],
  ["types of bench/peers", checkPeers],
  ["type tests", () => program(tool("vitest"), "run", "--project", "types")],
  ["lint", () => program(tool("oxlint"), "--deny-warnings")],
  ["format", () => program(tool("prettier"), "--check", ".")],
  ["Lua: format and names", () => checkLua()],
  [
    "unused code and dependencies",
    () => program(tool("knip"), "--treat-config-hints-as-errors"),
  ],
  ["packed packages", checkPackages],
  ["public API reports", () => checkApi({ local: false })],
  ["lockfiles", checkLockfiles],
  ["workflows", checkWorkflows],
  ["figures in READMEs", checkQuotes],
  ["line-up of the layers", () => checkLineup().findings],
];

let failures = 0;
for (const [name, check] of checks) {
  const start = Date.now();
  const findings = await check();
  const took = seconds(Date.now() - start);
  if (findings.length === 0) {
    console.log(`✓ ${name} (${took})`);
    continue;
  }
  failures += 1;
  console.log(`✗ ${name} (${took})`);
  for (const finding of findings) console.log(finding.replace(/^/gm, "    "));
}
console.log(
  failures === 0
    ? `All ${checks.length} checks are fine.`
    : `${failures} of ${checks.length} checks failed.`,
);
process.exitCode = failures === 0 ? 0 : 1;

/**
 * @param {readonly string[]} args
 * @returns {Promise<string[]>} what it printed, where it fails
 */
async function program(...args) {
  const { code, output } = await runNode(args, { capture: true });
  return code === 0 ? [] : [output.trim()];
}
