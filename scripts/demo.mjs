// npm run demo: makes the clone ready, then runs `flowfabric demo` with the remaining arguments.

import { bootstrap } from "./bootstrap.mjs";
import { runNode } from "./repository.mjs";

await bootstrap();
const { code } = await runNode([
  "packages/cli/dist/main.js",
  "demo",
  ...process.argv.slice(2),
]);
process.exitCode = code;
