// Every optional dependency that a lockfile names is an entry of it.
//
// Tools with native binaries name one optional package per platform. Where a lockfile lacks one of them, `npm ci`
// refuses to install, on the very machine of the newcomer whose platform it is and on no other.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isProgram, root } from "./repository.mjs";

/** Of the workspaces, and of the packages outside of them. */
const LOCKFILES = [
  "package-lock.json",
  "bench/peers/package-lock.json",
  "scripts/newer-node/package-lock.json",
];

/** @typedef {{ optionalDependencies?: Record<string, string> }} LockedPackage */

/** @returns {string[]} one line for each dependency that is named and not there */
export function checkLockfiles() {
  return LOCKFILES.flatMap((lockfile) => {
    /** @type {{ packages: Record<string, LockedPackage> }} */
    const { packages } = JSON.parse(readFileSync(join(root, lockfile), "utf8"));
    return Object.entries(packages).flatMap(
      ([path, { optionalDependencies }]) =>
        Object.keys(optionalDependencies ?? {})
          .filter((name) => !isLocked(packages, path, name))
          .map(
            (name) =>
              `${lockfile}: ${path || "the root"} names ${name}, which is missing`,
          ),
    );
  });
}

/**
 * Looks where Node would: in the package's own node_modules, then outward.
 *
 * @param {Record<string, LockedPackage>} packages
 * @param {string} path
 * @param {string} name
 */
function isLocked(packages, path, name) {
  const parts = path.split("/");
  for (let length = parts.length; length >= 0; length -= 1) {
    const candidate = [...parts.slice(0, length), "node_modules", name];
    if (candidate.filter(Boolean).join("/") in packages) return true;
  }
  return false;
}

if (isProgram(import.meta.url)) {
  const findings = checkLockfiles();
  for (const finding of findings) console.log(finding);
  process.exitCode = findings.length === 0 ? 0 : 1;
}
