/** Once per project: a server, whose address the tests are given. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import {
  describeServer,
  startValkey,
  type TestServer,
} from "@flowfabric/valkey-testing";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  interface ProvidedContext {
    valkeyUrl: string;
  }
}

export default function setup(
  project: TestProject,
): Promise<() => Promise<void>> {
  return provideServer(project, startValkey, "valkey");
}

/** @param name of the file that tells the summary of the run what it ran on; the server is gone when that is printed */
export async function provideServer(
  project: TestProject,
  start: () => Promise<TestServer>,
  name: string,
): Promise<() => Promise<void>> {
  const server = await start();
  project.provide("valkeyUrl", server.url);
  const folder = join(
    import.meta.dirname,
    "../../../node_modules/.cache/flowfabric",
  );
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(folder, `${name}-version`),
    await describeServer(server.url),
  );
  return () => server.stop();
}
