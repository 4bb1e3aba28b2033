/** Runs groups of the suite by program instead of by vitest, one case after the other. */
import type { BackendHarness, Group, Registrar } from "@flowfabric/conformance";

export interface Case {
  readonly name: string;
  readonly run: () => Promise<void>;
}

export interface Failure {
  readonly name: string;
  readonly error: unknown;
}

/** All cases of these groups, in their order. */
export function casesOf(
  groups: readonly Group[],
  harness: BackendHarness,
): Case[] {
  const cases: Case[] = [];
  const titles: string[] = [];
  const registrar: Registrar = {
    describe(name, body) {
      titles.push(name);
      body();
      titles.pop();
    },
    test: (name, run) =>
      void cases.push({ name: [...titles, name].join(" > "), run }),
  };
  for (const register of groups) register(harness, registrar);
  return cases;
}

/** The first case that fails; nothing when all hold. */
export async function firstFailure(
  cases: readonly Case[],
): Promise<Failure | undefined> {
  for (const { name, run } of cases) {
    try {
      await run();
    } catch (error) {
      return { name, error };
    }
  }
  return undefined;
}
