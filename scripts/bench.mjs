// npm run bench: makes the clone ready, then runs the benchmarks with the remaining arguments.

import { bootstrap } from "./bootstrap.mjs";
import { runNode } from "./repository.mjs";

await bootstrap();
const { code } = await runNode([
  "bench/dist/main.js",
  ...process.argv.slice(2),
]);
process.exitCode = code;
