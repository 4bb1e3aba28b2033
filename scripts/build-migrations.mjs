// migrations/<dialect>/NNNN_name.sql -> packages/<dialect>/src/generated/migrations.ts
//
// A package that reads its SQL from files would have to find them after bundling; a module of strings is simply there.
// The checksum goes into the ledger of a database, so that a migration edited after its release is noticed.

import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { isProgram, root, subdirectories } from "./repository.mjs";

/** @typedef {{ version: number, name: string, sql: string, checksum: string }} Migration */

/** Writes the module of every dialect that has a package. Untouched where nothing changed, for tsc goes by time stamps. */
export function buildMigrations() {
  for (const directory of subdirectories("migrations")) {
    const dialect = basename(directory);
    if (!existsSync(join(root, "packages", dialect, "package.json"))) continue;

    const target = join(
      root,
      "packages",
      dialect,
      "src/generated/migrations.ts",
    );
    const text = moduleText(directory, readMigrations(directory));
    if (existsSync(target) && readFileSync(target, "utf8") === text) continue;
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, text);
    console.log(`Wrote packages/${dialect}/src/generated/migrations.ts`);
  }
}

/**
 * @param {string} directory below the root
 * @returns {Migration[]} by version; numbers without gaps, starting at 1
 */
export function readMigrations(directory) {
  const files = readdirSync(join(root, directory))
    .filter((file) => file.endsWith(".sql") && file !== "schema.sql")
    .sort();
  return files.map((file, index) => {
    const [, digits, name] = /^(\d{4})_([a-z0-9_]+)\.sql$/.exec(file) ?? [];
    if (digits === undefined || name === undefined) {
      throw new Error(`${directory}/${file} is not named NNNN_name.sql`);
    }
    if (Number(digits) !== index + 1) {
      throw new Error(
        `${directory}/${file}: the number ${index + 1} was expected, each once and without gaps`,
      );
    }
    // Checked out with other line ends it is still the same migration.
    const sql = readFileSync(join(root, directory, file), "utf8").replaceAll(
      "\r\n",
      "\n",
    );
    const checksum = createHash("sha256").update(sql).digest("hex");
    return { version: index + 1, name, sql, checksum };
  });
}

/**
 * @param {string} directory
 * @param {Migration[]} migrations
 */
function moduleText(directory, migrations) {
  const entries = migrations.map(
    ({ version, name, sql, checksum }) => `  {
    version: ${version},
    name: ${JSON.stringify(name)},
    checksum: ${JSON.stringify(checksum)},
    sql: ${templateLiteral(sql)},
  },
`,
  );
  return `// Built from ${directory} by scripts/build-migrations.mjs. Edit those files, not this one.

export interface Migration {
  readonly version: number;
  readonly name: string;
  /** SHA-256 of the SQL text, as hex. */
  readonly checksum: string;
  readonly sql: string;
}

export const migrations: readonly Migration[] = [
${entries.join("")}];
`;
}

/** @param {string} text */
function templateLiteral(text) {
  return "`" + text.replace(/[\\`]|\$\{/g, (special) => `\\${special}`) + "`";
}

if (isProgram(import.meta.url)) buildMigrations();
