// A program that writes enough for checkpoints, then simply has nothing more to do. It runs the build, as peer.mjs does.

import { sqliteBackend } from "@flowfabric/sqlite";

const backend = await sqliteBackend({
  path: /** @type {string} */ (process.argv[2]),
  durability: "normal",
});
const large = { executionKind: "large", inputPayload: Buffer.alloc(1_000_000) };
for (let i = 0; i < 10; i++)
  await backend.submitMany({ items: [large, large, large, large] });
process.disconnect?.();
