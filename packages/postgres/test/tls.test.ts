/** To a server that talks TLS only, with a certificate that no public authority has signed. */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { migratePostgres } from "@flowfabric/postgres";
import { startServerWith, type TestServer } from "@flowfabric/postgres-testing";
import pg from "pg";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";

import { postgresBackend } from "../src/backend.js";
import type { PostgresOptions } from "../src/options.js";
import { claim, refusalOf } from "./stores.js";

let folder: string;
let server: TestServer;

/** Who connects is asked for TLS, also from this host. */
const ACCESS = `
hostssl all all 127.0.0.1/32 trust
hostnossl all all 127.0.0.1/32 reject
`;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "flowfabric-tls-"));
  makeCertificate("server", "127.0.0.1");
  makeCertificate("other", "127.0.0.1");
  server = await startServerWith(
    (workplace) => {
      const files: Readonly<Record<string, string>> = {
        "server.key": readFileSync(path("server.key"), "utf8"),
        "server.crt": readFileSync(path("server.crt"), "utf8"),
        "access.conf": ACCESS,
      };
      for (const [name, text] of Object.entries(files)) {
        writeFileSync(workplace.path(name), text);
        // The server takes a key only where nobody else can read it.
        chmodSync(workplace.path(name), 0o600);
        workplace.own(workplace.path(name));
      }
      return [
        "ssl=on",
        `ssl_cert_file=${workplace.path("server.crt")}`,
        `ssl_key_file=${workplace.path("server.key")}`,
        `hba_file=${workplace.path("access.conf")}`,
      ];
    },
    { sslmode: "no-verify" },
  );
}, 60_000);

afterAll(async () => {
  await server.stop();
  rmSync(folder, { recursive: true });
});

function path(name: string): string {
  return join(folder, name);
}

/** Signed by itself. */
function makeCertificate(name: string, host: string): void {
  execFileSync(
    "openssl",
    [
      ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"],
      ...["-subj", `/CN=${name}`, "-addext", `subjectAltName=IP:${host}`],
      ...["-keyout", path(`${name}.key`), "-out", path(`${name}.crt`)],
    ],
    { stdio: "pipe" },
  );
}

function address(parameters: Readonly<Record<string, string>>): string {
  const url = new URL(server.url);
  url.search = new URLSearchParams(parameters).toString();
  return url.href;
}

let schemas = 0;
function newSchema(): string {
  return `tls_${++schemas}`;
}

/** A submission that another store's parked claim hears of, and its end: over the pool and the listening connection. */
async function works(options: PostgresOptions): Promise<void> {
  const schema = newSchema();
  const backend = await postgresBackend({ ...options, schema });
  const other = await postgresBackend({ ...options, schema });
  onTestFinished(async () => {
    await backend.close();
    await other.close();
  });
  const parked = other.claimMany({ ...claim, maxWaitMs: 10_000 });
  await untilListening(schema);
  const { executionId } = await backend.createExecution({
    executionKind: "x",
  });
  const { claimed } = await parked;
  expect(claimed).toMatchObject([{ executionId }]);
  await other.complete({ handle: claimed[0]!.handle });
  expect(await backend.readExecutionState({ executionId })).toBe("completed");
}

/** And every connection, that one included, is encrypted. */
async function untilListening(schema: string): Promise<void> {
  const client = new pg.Client({
    connectionString: address({ sslmode: "no-verify" }),
  });
  await client.connect();
  try {
    for (;;) {
      const { rows } = await client.query<{ ssl: boolean; query: string }>(
        "SELECT ssl, query FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE backend_type = 'client backend'",
      );
      expect(rows.filter(({ ssl }) => !ssl)).toEqual([]);
      if (rows.some(({ query }) => query === `LISTEN "flowfabric_${schema}"`))
        return;
    }
  } finally {
    await client.end();
  }
}

test("an address with sslmode and the certificate to trust", async () => {
  await works({
    connectionString: address({
      sslmode: "verify-full",
      sslrootcert: path("server.crt"),
    }),
  });
});

test("an address with sslmode=no-verify encrypts and asks no more", async () => {
  await works({ connectionString: address({ sslmode: "no-verify" }) });
});

test("a pool with ssl; the listening connection has its settings too", async () => {
  const pool = new pg.Pool({
    connectionString: address({}),
    ssl: { ca: readFileSync(path("server.crt"), "utf8") },
  });
  onTestFinished(() => pool.end());
  await works({ pool });
});

test("without TLS, and with a certificate that is not the server's, nobody gets in", async () => {
  for (const parameters of [
    { sslmode: "disable" },
    { sslmode: "verify-full" },
    { sslmode: "verify-full", sslrootcert: path("other.crt") },
  ]) {
    const options = {
      connectionString: address(parameters),
      schema: newSchema(),
    };
    for (const call of [
      () => postgresBackend(options),
      () => migratePostgres(options),
    ])
      expect(await refusalOf(call()), JSON.stringify(parameters)).toMatchObject(
        { code: "transport" },
      );
  }
});
