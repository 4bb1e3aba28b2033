import { randomUUID } from "node:crypto";

import { openClient, removeKeys } from "@flowfabric/valkey-testing";
import { afterAll, inject } from "vitest";

import { exampleTests } from "./examples-suite.js";

const prefix = `examples_${randomUUID().replaceAll("-", "")}`;
const client = openClient(inject("valkeyUrl"));

afterAll(async () => {
  await removeKeys(client, prefix);
  client.disconnect();
});

exampleTests(`${inject("valkeyUrl")}?prefix=${prefix}`);
