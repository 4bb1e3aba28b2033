// A vitest reporter that writes down, per project, what scripts/test.mjs needs for its summary and its verdict.

import { writeFileSync } from "node:fs";
import { stripVTControlCharacters } from "node:util";

/**
 * @typedef {object} ProjectCount
 * @property {number} passed
 * @property {number} failed a file that cannot be loaded, or a hook that throws, counts as one
 * @property {number} skipped
 * @property {number} durationMs the time inside its test files, added up
 * @property {Record<string, number>} files durations in milliseconds
 * @property {string[]} failures what failed and the first line of why, one line each
 *
 * @typedef {object} Counts
 * @property {Record<string, ProjectCount>} projects
 * @property {number} unhandledErrors errors outside of any test
 */

const MESSAGE_LENGTH_MAX = 300;

export default class CountReporter {
  /**
   * @param {ReadonlyArray<import("vitest/node").TestModule>} modules
   * @param {ReadonlyArray<unknown>} unhandledErrors
   */
  onTestRunEnd(modules, unhandledErrors) {
    const file = process.env["FLOWFABRIC_COUNTS_FILE"];
    if (file === undefined) return;

    /** @type {Counts} */
    const counts = { projects: {}, unhandledErrors: unhandledErrors.length };
    for (const module of modules) {
      const count = (counts.projects[module.project.name] ??= {
        passed: 0,
        failed: 0,
        skipped: 0,
        durationMs: 0,
        files: {},
        failures: [],
      });
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === "passed") count.passed += 1;
        else if (state === "failed") {
          count.failed += 1;
          count.failures.push(
            failure(module, test, test.result().errors ?? []),
          );
        } else count.skipped += 1;
      }
      // A file that does not load and a hook that throws fail tests that no longer appear as failed.
      for (const scope of [module, ...module.children.allSuites()]) {
        if (scope.errors().length === 0) continue;
        count.failed += 1;
        count.failures.push(failure(module, scope, scope.errors()));
      }

      const durationMs = module.diagnostic().duration;
      count.durationMs += durationMs;
      count.files[module.relativeModuleId] = durationMs;
    }
    writeFileSync(file, JSON.stringify(counts));
  }
}

/**
 * @param {import("vitest/node").TestModule} module
 * @param {import("vitest/node").TestModule | import("vitest/node").TestSuite | import("vitest/node").TestCase} scope
 * @param {ReadonlyArray<{ message: string }>} errors
 */
function failure(module, scope, [error]) {
  const name = "fullName" in scope ? ` > ${scope.fullName}` : "";
  const message = stripVTControlCharacters(error?.message ?? "")
    .replace(/\n.*/s, "")
    .slice(0, MESSAGE_LENGTH_MAX);
  return `${module.project.name} ${module.relativeModuleId}${name}: ${message}`;
}
