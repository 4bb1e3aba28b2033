/** As global-setup.ts, with the oldest Redis that is supported. */
import { startRedis } from "@flowfabric/valkey-testing";
import type { TestProject } from "vitest/node";

import { provideServer } from "./global-setup.js";

export default function setup(
  project: TestProject,
): Promise<() => Promise<void>> {
  return provideServer(project, startRedis, "valkey-redis");
}
