// The public surface of core and sdk stands in etc/<package>.api.md, so that a change of the contract is a visible diff in
// review. `npm run api` writes the reports; without --local they are only compared.

import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  Extractor,
  ExtractorConfig,
  ExtractorLogLevel,
} from "@microsoft/api-extractor";
import { isProgram, root } from "./repository.mjs";

const packages = ["core", "sdk"];

/**
 * @param {{ local: boolean }} options local: update the reports
 * @returns {string[]} one line for each thing to do
 */
export function checkApi({ local }) {
  mkdirSync(join(root, "etc"), { recursive: true });
  const temporary = mkdtempSync(join(tmpdir(), "flowfabric-api-"));
  try {
    return packages.flatMap((name) => report(name, temporary, local));
  } finally {
    rmSync(temporary, { recursive: true });
  }
}

/**
 * @param {string} name
 * @param {string} temporary where the report of now is put for the comparison
 * @param {boolean} local
 * @returns {string[]}
 */
function report(name, temporary, local) {
  const projectFolder = join(root, "packages", name);
  const mainEntryPointFilePath = join(projectFolder, "dist/index.d.ts");
  if (!existsSync(mainEntryPointFilePath))
    return [`packages/${name} has not been built: npm run build`];

  /** @type {string[]} */
  const findings = [];
  const silent = { logLevel: ExtractorLogLevel.None };
  const config = ExtractorConfig.prepare({
    configObjectFullPath: join(projectFolder, "api-extractor.json"),
    packageJsonFullPath: join(projectFolder, "package.json"),
    configObject: {
      projectFolder,
      mainEntryPointFilePath,
      newlineKind: "lf",
      compiler: {
        tsconfigFilePath: join(projectFolder, "tsconfig.json"),
        skipLibCheck: true,
      },
      apiReport: {
        enabled: true,
        reportFileName: `${name}.api.md`,
        reportFolder: join(root, "etc"),
        reportTempFolder: temporary,
      },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      // What it thinks of our comments is not asked; release tags are not used, everything exported is public.
      messages: {
        extractorMessageReporting: { default: silent },
        tsdocMessageReporting: { default: silent },
      },
    },
  });
  const result = Extractor.invoke(config, {
    localBuild: local,
    messageCallback(message) {
      message.handled = true;
      if (message.logLevel === ExtractorLogLevel.Error)
        findings.push(message.text);
    },
  });
  if (result.apiReportChanged) {
    if (local) console.log(`Wrote etc/${name}.api.md`);
    else
      findings.push(
        `etc/${name}.api.md differs from what packages/${name} exports now. If that is meant: npm run api`,
      );
  }
  return findings;
}

if (isProgram(import.meta.url)) {
  const findings = checkApi({ local: process.argv.includes("--local") });
  for (const finding of findings) console.log(finding);
  process.exitCode = findings.length === 0 ? 0 : 1;
}
