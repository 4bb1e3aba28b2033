// npm run example <name>: makes the clone ready, then runs that example with the remaining arguments.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { bootstrap } from "./bootstrap.mjs";
import { root, runNode, subdirectories } from "./repository.mjs";

const [name = "", ...args] = process.argv.slice(2);
const isProgramOf = (/** @type {string} */ folder) =>
  existsSync(join(root, folder, "main.ts"));

if (/^[a-z-]+$/.test(name) && isProgramOf(`examples/${name}`)) {
  await bootstrap();
  const { code } = await runNode([`examples/dist/${name}/main.js`, ...args]);
  process.exitCode = code;
} else {
  const names = subdirectories("examples")
    .filter(isProgramOf)
    .map((folder) => folder.slice("examples/".length));
  console.error(`npm run example <name>, one of: ${names.join(", ")}`);
  process.exitCode = 1;
}
