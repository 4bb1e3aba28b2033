/** Connections that go wrong in ways which a real server shows once in a thousand times; here a made-up one does. */
import { createServer, type AddressInfo } from "node:net";

import { isEngineError } from "@flowfabric/core";
import { postgresBackend } from "@flowfabric/postgres";
import { expect, onTestFinished, test } from "vitest";

test("a server that ends a session in the breath that lets it in costs a transport fault, not the process", async () => {
  const url = await speak(
    Buffer.concat([
      message("R", int32(0)),
      message("Z", Buffer.from("I")),
      message("E", Buffer.from("SFATAL\0C57P01\0Mended by the operator\0\0")),
    ]),
  );

  const opening = postgresBackend({ connectionString: url });

  await expect(opening).rejects.toSatisfy((e) => isEngineError(e, "transport"));
});

test("a server that lets in and then says nothing is given up after the answer timeout", async () => {
  const url = await speak(
    Buffer.concat([message("R", int32(0)), message("Z", Buffer.from("I"))]),
  );

  const opening = postgresBackend({
    connectionString: url,
    answerTimeoutMs: 100,
  });

  await expect(opening).rejects.toSatisfy((e) => isEngineError(e, "transport"));
});

/** A server that answers every startup packet with these bytes, and nothing after it. @returns its address */
async function speak(greeting: Buffer): Promise<string> {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => socket.write(greeting));
  });
  await new Promise<void>((resolve) =>
    server.listen(0, "127.0.0.1", () => resolve()),
  );
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  return `postgres://nobody@127.0.0.1:${port}/nothing`;
}

function message(type: string, body: Buffer): Buffer {
  return Buffer.concat([Buffer.from(type), int32(4 + body.length), body]);
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}
