/** Reads the cases that every implementation of a rule shares. */
import { readFileSync } from "node:fs";

export function readVectors<T>(name: string): T {
  const url = new URL(
    `../../../test-suites/vectors/${name}.json`,
    import.meta.url,
  );
  return JSON.parse(readFileSync(url, "utf8")) as T;
}

/** JSON has no absence: what is `null` in a file is left out. */
export function present<T extends object>(
  record: T,
): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(
    Object.entries(record).filter(([, value]) => value !== null),
  ) as { [K in keyof T]?: NonNullable<T[K]> };
}

/** Cases under a name of their own. */
export function named<T>(cases: readonly T[]): [string, T][] {
  return cases.map((one) => [
    (one as { name?: string }).name ?? JSON.stringify(one),
    one,
  ]);
}
