import { randomUUID } from "node:crypto";

import pg from "pg";
import { inject } from "vitest";

import { crashSuite } from "./crash-suite.js";

const url = inject("postgresUrl");

crashSuite({
  name: "postgres",
  async create() {
    const schema = `crash_${randomUUID().replaceAll("-", "")}`;
    const location = new URL(url);
    location.searchParams.set("schema", schema);
    return {
      store: location.href,
      damage: () =>
        query(`
          SELECT 'execution ' || e.seq || ' counts ' || e.events || ' events, not ' || count(l.n) AS finding
          FROM "${schema}".executions AS e
          LEFT JOIN "${schema}".events AS l ON l.execution = e.seq AND l.n IS NOT NULL
          GROUP BY e.seq, e.events
          HAVING count(l.n) <> e.events`),
      async remove() {
        await query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`);
      },
    };
  },
});

async function query(sql: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ finding: string }>(sql);
    return rows.map(({ finding }) => finding);
  } finally {
    await client.end();
  }
}
