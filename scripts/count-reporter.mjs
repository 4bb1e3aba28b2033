// A vitest reporter that writes down, per project, what scripts/test.mjs needs for its summary and its verdict.

import { writeFileSync } from "node:fs";

/**
 * @typedef {object} ProjectCount
 * @property {number} passed
 * @property {number} failed a file that cannot be loaded, or a hook that throws, counts as one
 * @property {number} skipped
 * @property {number} durationMs the time inside its test files, added up
 * @property {Record<string, number>} files durations in milliseconds
 *
 * @typedef {object} Counts
 * @property {Record<string, ProjectCount>} projects
 * @property {number} unhandledErrors errors outside of any test
 */

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
      });
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === "passed") count.passed += 1;
        else if (state === "failed") count.failed += 1;
        else count.skipped += 1;
      }
      // A file that does not load and a hook that throws fail tests that no longer appear as failed.
      for (const scope of [module, ...module.children.allSuites()]) {
        if (scope.errors().length > 0) count.failed += 1;
      }

      const durationMs = module.diagnostic().duration;
      count.durationMs += durationMs;
      count.files[module.relativeModuleId] = durationMs;
    }
    writeFileSync(file, JSON.stringify(counts));
  }
}
