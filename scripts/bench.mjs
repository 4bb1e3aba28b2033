// npm run bench [-- <benchmark>] [options]: makes the clone ready, then runs one of the benchmarks. Without a name, or as
// `peers`, it is the comparison with other systems; the others ask what our own parts cost.

import { bootstrap } from "./bootstrap.mjs";
import { preparePeers } from "./bench-peers.mjs";
import { run, runNode } from "./repository.mjs";

const [first = "peers", ...rest] = process.argv.slice(2);
const isPeers = first === "peers" || first.startsWith("--");

const { code } = isPeers
  ? await run(await preparePeers(), [
      "bench/peers/dist/main.js",
      ...(first === "peers" ? rest : [first, ...rest]),
    ])
  : await bootstrap().then(() =>
      runNode(["bench/dist/main.js", first, ...rest]),
    );
process.exitCode = code;
