/** As global-setup.ts, with the newest Postgres that the registry has. */
import type { TestProject } from "vitest/node";

import { provideServer } from "./global-setup.js";
import { startNewestServer } from "@flowfabric/postgres-testing";

export default function setup(
  project: TestProject,
): Promise<() => Promise<void>> {
  return provideServer(project, startNewestServer, "postgres-newest");
}
