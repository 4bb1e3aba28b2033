// Packs every published package and checks the packed file: what users install, not what we see.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isProgram, run, runNode, tool, workspaces } from "./repository.mjs";

/** @returns {Promise<string[]>} what the checks printed for each package that fails one */
export async function checkPackages() {
  const directory = mkdtempSync(join(tmpdir(), "flowfabric-pack-"));
  try {
    const findings = [];
    for (const { directory: workspace, manifest } of workspaces()) {
      if (manifest.private) continue;
      findings.push(...(await checkPackage(workspace, directory)));
    }
    return findings;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/**
 * @param {string} workspace
 * @param {string} directory where to pack it to
 * @returns {Promise<string[]>}
 */
async function checkPackage(workspace, directory) {
  const pack = await run(
    "npm",
    ["pack", "--silent", "--pack-destination", directory, "-w", workspace],
    { capture: true, shell: process.platform === "win32" },
  );
  const file = /\S+\.tgz/.exec(pack.output)?.[0];
  if (pack.code !== 0 || file === undefined)
    return [`npm pack of ${workspace} failed:\n${pack.output}`];

  const packed = join(directory, file);
  const checks = await Promise.all([
    runNode([tool("publint"), "run", packed, "--strict"], { capture: true }),
    runNode(
      [tool("@arethetypeswrong/cli", "attw"), packed, "--profile=esm-only"],
      { capture: true },
    ),
  ]);
  return checks.filter(({ code }) => code !== 0).map(({ output }) => output);
}

if (isProgram(import.meta.url)) {
  const findings = await checkPackages();
  for (const finding of findings) console.log(finding);
  process.exitCode = findings.length === 0 ? 0 : 1;
}
