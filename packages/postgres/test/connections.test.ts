/** Connections that go wrong in ways which a real server shows once in a thousand times; here a made-up one does. */
import { createServer, type AddressInfo, type Socket } from "node:net";

import { isEngineError } from "@flowfabric/core";
import { postgresBackend } from "@flowfabric/postgres";
import pg from "pg";
import { expect, onTestFinished, test } from "vitest";

import { Database } from "../src/db.js";
import { Dialect } from "../src/dialect.js";

const LET_IN = Buffer.concat([
  message("R", int32(0)),
  message("Z", Buffer.from("I")),
]);

test("a server that ends a session in the breath that lets it in costs a transport fault, not the process", async () => {
  const goodbye = Buffer.concat([LET_IN, ended("57P01")]);
  const connectionString = await serve((socket) => socket.end(goodbye));
  const pool = new pg.Pool({ connectionString });
  onTestFinished(() => pool.end());

  for (const options of [{ connectionString }, { pool }])
    await expect(postgresBackend(options)).rejects.toSatisfy((e) =>
      isEngineError(e, "transport"),
    );
});

test("a server that lets in and then says nothing is given up after the answer timeout", async () => {
  const connectionString = await serve((socket) => socket.write(LET_IN));

  const opening = postgresBackend({ connectionString, answerTimeoutMs: 100 });

  await expect(opening).rejects.toSatisfy((e) => isEngineError(e, "transport"));
});

test("a statement that met a session ended for its silence was not read, and is sent again", async () => {
  const { database, queries } = await answering(ended("57P05"), done("SELECT"));

  await expect(database.query("SELECT")).resolves.toEqual([]);

  expect(queries()).toBe(2);
});

test("a statement that met a server which shuts down may have happened, and is not sent again", async () => {
  const { database, queries } = await answering(ended("57P01"), done("SELECT"));

  await expect(database.query("SELECT")).rejects.toMatchObject({
    code: "57P01",
  });

  expect(queries()).toBe(1);
});

/** On a server that answers the first query to reach it with the one, all later ones with the other. */
async function answering(first: Buffer, later: Buffer) {
  let queries = 0;
  const connectionString = await serve((socket) => {
    socket.write(LET_IN);
    socket.on("data", (bytes: Buffer) => {
      if (!bytes.toString("latin1").startsWith("Q")) return;
      if (queries++ === 0) socket.end(first);
      else socket.write(later);
    });
  });
  const pool = new pg.Pool({ connectionString, pipeline: true });
  pool.on("error", () => {});
  const database = new Database(pool, new Dialect("nothing", false, 1_000), {
    push: false,
    end: () => pool.end(),
    onRoutes: async () => {},
  });
  onTestFinished(() => database.close());
  return { database, queries: () => queries };
}

/** @param startUp called with the first bytes of each connection @returns the server's address */
async function serve(startUp: (socket: Socket) => void): Promise<string> {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => startUp(socket));
  });
  await new Promise<void>((resolve) =>
    server.listen(0, "127.0.0.1", () => resolve()),
  );
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  return `postgres://nobody@127.0.0.1:${port}/nothing`;
}

function ended(code: string): Buffer {
  return message("E", Buffer.from(`SFATAL\0C${code}\0Mended\0\0`));
}

function done(command: string): Buffer {
  return Buffer.concat([
    message("C", Buffer.from(`${command}\0`)),
    message("Z", Buffer.from("I")),
  ]);
}

function message(type: string, body: Buffer): Buffer {
  return Buffer.concat([Buffer.from(type), int32(4 + body.length), body]);
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}
