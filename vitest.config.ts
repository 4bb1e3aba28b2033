import { defaultServerConditions } from "vite";
import { defineConfig, type UserWorkspaceConfig } from "vitest/config";
import { backends, storesOf, unitProject } from "./scripts/backends.mjs";

// Tests import the packages by name and get their sources, so an edit needs no build. The crash suite also starts
// programs, and those run the build.
const fromSource = {
  resolve: { conditions: ["source", ...defaultServerConditions] },
  ssr: { resolve: { conditions: ["source", ...defaultServerConditions] } },
};

const exclude = ["**/node_modules/**", "**/dist/**"];
const conformanceTests = backends.map(
  ({ packageDirectory }) => `${packageDirectory}/test/conformance.test.ts`,
);
/** All of the backend's own tests, and in other packages the files that bear its name. */
const serverTests = new Map(
  backends
    .filter((backend) => unitProject(backend) !== undefined)
    .map(({ name, packageDirectory }) => [
      name,
      [
        `${packageDirectory}/test/**/*.test.ts`,
        `packages/*/test/${name}.test.ts`,
      ],
    ]),
);
const rateTests = backends.flatMap(({ rateTest }) => rateTest ?? []);
const scale = Number(process.env["FLOWFABRIC_TEST_SCALE"] ?? "0.2");

const projects: UserWorkspaceConfig[] = [
  {
    ...fromSource,
    test: {
      name: "unit",
      include: ["packages/*/test/**/*.test.ts"],
      exclude: [
        ...exclude,
        ...conformanceTests,
        ...[...serverTests.values()].flat(),
      ],
    },
  },
  {
    // Against the build, for those are the declarations that users get.
    test: {
      name: "types",
      include: [],
      typecheck: {
        enabled: true,
        only: true,
        include: ["**/*.test-d.ts"],
        exclude,
        tsconfig: "tsconfig.type-tests.json",
      },
    },
  },
  {
    // The conformance suite against backends that are wrong on purpose: each fault must be caught.
    ...fromSource,
    test: {
      name: "self-test",
      include: ["test-suites/conformance/test/**/*.test.ts"],
      exclude,
    },
  },
  ...[...serverTests].map(([name, include]) => ({
    ...fromSource,
    test: {
      name: `unit:${name}`,
      include,
      exclude: [...exclude, ...conformanceTests, ...rateTests],
      globalSetup: backends.find((backend) => backend.name === name)!
        .serverSetup!,
    },
  })),
  ...backends.flatMap(({ name, serverSetup, rateTest }, position) =>
    rateTest === undefined
      ? []
      : {
          ...fromSource,
          test: {
            name: `rates:${name}`,
            include: [rateTest],
            ...(serverSetup === undefined ? {} : { globalSetup: serverSetup }),
            // Alone, each of them: what else runs would be measured with it.
            sequence: { groupOrder: 2 + position },
          },
        },
  ),
  ...backends.flatMap((backend) =>
    storesOf(backend).flatMap(({ store, serverSetup, scale: share }) => {
      const onStore = {
        ...(serverSetup === undefined ? {} : { globalSetup: serverSetup }),
        env: { FLOWFABRIC_TEST_SCALE: String(scale * share) },
      };
      return [
        {
          ...fromSource,
          test: {
            ...onStore,
            name: `conformance:${store}`,
            include: [`${backend.packageDirectory}/test/conformance.test.ts`],
          },
        },
        {
          ...fromSource,
          test: {
            ...onStore,
            name: `crash:${store}`,
            include: [`test-suites/crash/test/${backend.name}.test.ts`],
            // After all others: it starts processes of its own and measures how soon they notice things.
            sequence: { groupOrder: 1 },
          },
        },
        {
          // They run the build, as users run them, beside the crash suite that starts processes as well.
          test: {
            ...onStore,
            name: `examples:${store}`,
            include: [`examples/test/${backend.name}.test.ts`],
            sequence: { groupOrder: 1 },
          },
        },
      ];
    }),
  ),
  ...backends.flatMap(({ name, faultTest }, position) =>
    faultTest === undefined
      ? []
      : {
          ...fromSource,
          test: {
            name: `faults:${name}`,
            include: [faultTest],
            // At the end, and alone as well: they measure how soon things go on.
            sequence: { groupOrder: 2 + backends.length + position },
          },
        },
  ),
];

export default defineConfig({
  test: {
    projects: projects.map((project) => ({ extends: true, ...project })),
    // By default one core is left idle, and of two cores that is half; the tests wait more than they compute.
    maxWorkers: "100%",
    // Random sequences and started programs, on a machine that may be busy with both.
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // A conformance case on a store that lacks an operation ends at the first call of it; what it had started beside that is
    // told the same, and nobody is left to hear it.
    onUnhandledError: (error) => error.name !== "NotOffered",
  },
});
