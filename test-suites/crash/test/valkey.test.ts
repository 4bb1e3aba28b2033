import { randomUUID } from "node:crypto";

import { findKeys, openClient, removeKeys } from "@flowfabric/valkey-testing";
import { inject } from "vitest";

import { crashSuite } from "./crash-suite.js";

const url = inject("valkeyUrl");

/** A record counts its events; the first of them lie in it, by number and value, later ones beside it. */
const COUNT_EVENTS = `
  local record = { cmsgpack.unpack(redis.call("GET", KEYS[1])) }
  local counted, history = record[9], record[49]
  local inside = history and #{ cmsgpack.unpack(history) } / 2 or 0
  return { counted, inside + redis.call("HLEN", KEYS[2]) }`;

/** Behind the tag of the cell stands what a key holds. */
const RECORD = "}:x:";
const LATER_EVENTS = "}:v:";

crashSuite({
  name: "valkey",
  async create() {
    const prefix = `crash_${randomUUID().replaceAll("-", "")}`;
    const client = openClient(url);
    return {
      store: `${url}?prefix=${prefix}`,
      async damage() {
        const findings: string[] = [];
        for await (const { node, keys } of findKeys(
          client,
          `${prefix}:{*${RECORD}*`,
        ))
          for (const key of keys) {
            const at = key.indexOf(RECORD);
            const ref = key.subarray(at + RECORD.length);
            const beside = Buffer.concat([
              key.subarray(0, at),
              Buffer.from(LATER_EVENTS),
              ref,
            ]);
            const [counted, stored] = (await node.eval(
              COUNT_EVENTS,
              2,
              key,
              beside,
            )) as [number, number];
            if (counted !== stored)
              findings.push(
                `${ref.toString("hex")} counts ${counted} events, not ${stored}`,
              );
          }
        return findings;
      },
      async remove() {
        await removeKeys(client, prefix);
        client.disconnect();
      },
    };
  },
});
