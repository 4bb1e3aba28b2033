/** Once per run of the suites: a server, whose address the tests are given. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { startServer } from "@flowfabric/postgres-testing";
import pg from "pg";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  interface ProvidedContext {
    postgresUrl: string;
  }
}

export default async function setup(
  project: TestProject,
): Promise<() => Promise<void>> {
  const server = await startServer();
  project.provide("postgresUrl", server.url);
  await noteVersion(server.url);
  return () => server.stop();
}

/** For the summary of the run, which is printed when the server is gone. */
async function noteVersion(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
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
    join(folder, "postgres-version"),
    rows[0]!.server_version.split(" ")[0]!,
  );
}
