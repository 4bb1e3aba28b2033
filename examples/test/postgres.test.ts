import { randomUUID } from "node:crypto";

import pg from "pg";
import { afterAll, inject } from "vitest";

import { exampleTests } from "./examples-suite.js";

const schema = `examples_${randomUUID().replaceAll("-", "")}`;
const address = new URL(inject("postgresUrl"));
address.searchParams.set("schema", schema);

afterAll(async () => {
  const client = new pg.Client({ connectionString: inject("postgresUrl") });
  await client.connect();
  await client.query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`);
  await client.end();
});

exampleTests(address.href);
