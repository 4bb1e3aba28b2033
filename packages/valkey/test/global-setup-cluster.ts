/** As global-setup.ts, with a cluster of three masters. */
import { startCluster } from "@flowfabric/valkey-testing";
import type { TestProject } from "vitest/node";

import { provideServer } from "./global-setup.js";

export default function setup(
  project: TestProject,
): Promise<() => Promise<void>> {
  return provideServer(project, startCluster, "valkey-cluster");
}
