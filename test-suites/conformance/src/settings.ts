/** How much the random parts of the suite do, and from which seed. */

/** 1 is the full length, as in continuous integration; the default keeps a run at the desk short. */
function scale(): number {
  const given = Number(process.env["FLOWFABRIC_TEST_SCALE"] ?? "");
  return Number.isFinite(given) && given > 0 ? given : 0.2;
}

/** `full` at scale 1, never below `least`. */
export function scaled(full: number, least = 1): number {
  return Math.max(least, Math.round(full * scale()));
}

/**
 * For every property. FLOWFABRIC_TEST_SEED: what a failed run printed, to see that run again; absent, every run draws its
 * own. FLOWFABRIC_TEST_SHRINK=off: report the first failure as it was drawn, for whoever only wants to know that there is
 * one.
 */
export function reproducible(): {
  readonly seed?: number;
  readonly endOnFailure: boolean;
} {
  const given = process.env["FLOWFABRIC_TEST_SEED"];
  return {
    ...(given === undefined || given === "" ? {} : { seed: Number(given) }),
    endOnFailure: process.env["FLOWFABRIC_TEST_SHRINK"] === "off",
  };
}
