/** A schema per test, gone after it. */
import { randomUUID } from "node:crypto";

import pg from "pg";

export interface TestSchema extends AsyncDisposable {
  readonly name: string;
}

/** Its tables are made by whoever opens a store in it. */
export function newSchema(connectionString: string): TestSchema {
  const name = newSchemaName();
  return {
    name,
    async [Symbol.asyncDispose]() {
      await using client = await connect(connectionString);
      await client.query(`DROP SCHEMA IF EXISTS "${name}" CASCADE`);
    },
  };
}

export function newSchemaName(): string {
  return `test_${randomUUID().replaceAll("-", "")}`;
}

/** A connection that ends with the block. */
export async function connect(
  connectionString: string,
): Promise<pg.Client & AsyncDisposable> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  return Object.assign(client, {
    [Symbol.asyncDispose]: () => client.end(),
  });
}
