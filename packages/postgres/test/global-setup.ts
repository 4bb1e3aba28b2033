/** Once per project: a server, whose address the tests are given. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { startServer, type TestServer } from "@flowfabric/postgres-testing";
import pg from "pg";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  interface ProvidedContext {
    postgresUrl: string;
  }
}

export default function setup(
  project: TestProject,
): Promise<() => Promise<void>> {
  return provideServer(project, startServer, "postgres");
}

/** @param name of the file that tells the summary of the run what it ran on; the server is gone when that is printed */
export async function provideServer(
  project: TestProject,
  start: () => Promise<TestServer>,
  name: string,
): Promise<() => Promise<void>> {
  const server = await start();
  project.provide("postgresUrl", server.url);
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  const { rows } = await client.query<{ server_version: string }>(
    "SHOW server_version",
  );
  await client.end();
  const folder = join(
    import.meta.dirname,
    "../../../node_modules/.cache/flowfabric",
  );
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(folder, `${name}-version`),
    rows[0]!.server_version.split(" ")[0]!,
  );
  return () => server.stop();
}
