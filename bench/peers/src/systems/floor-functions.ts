/**
 * The floor under Valkey where each step is one function: the least that a fenced queue does. Payload, order, a lease that
 * runs out, a check of the lease when it is done; no history, no retries, no wake-ups.
 */
import { Redis } from "ioredis";

import { pause, runLoops } from "./loops.js";
import type { Job, Place, System } from "./system.js";

const LIBRARY = `#!lua name=floor
local function now() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end
redis.register_function('floor_submit', function(keys, argv)
  local id = redis.call('INCR', keys[1])
  redis.call('HSET', keys[2] .. id, 'payload', argv[1])
  redis.call('ZADD', keys[3], now(), id)
  return id
end)
redis.register_function('floor_take', function(keys, argv)
  local popped = redis.call('ZPOPMIN', keys[2])
  if #popped == 0 then return false end
  local id = popped[1]
  local ends = now() + argv[2]
  redis.call('ZADD', keys[3], ends, id)
  redis.call('HSET', keys[1] .. id, 'owner', argv[1], 'ends', ends)
  return { id, redis.call('HGET', keys[1] .. id, 'payload') }
end)
redis.register_function('floor_finish', function(keys, argv)
  local held = redis.call('HMGET', keys[1] .. argv[1], 'owner', 'ends')
  if held[1] ~= argv[2] or tonumber(held[2]) < now() then return 0 end
  redis.call('ZREM', keys[2], argv[1])
  redis.call('HSET', keys[1] .. argv[1], 'state', 'done')
  return 1
end)`;

const LEASE_MS = 30_000;
const LOOK_MS = 5;

export function functionFloor(): System {
  return {
    async prepare(place) {
      const client = clientOf(place);
      await client.function("LOAD", "REPLACE", LIBRARY);
      client.disconnect();
    },
    async openProducer(place) {
      const client = clientOf(place);
      const submit = (job: Job, lane: string) =>
        client.fcall(
          "floor_submit",
          3,
          "ids",
          "job:",
          waitingIn(lane),
          JSON.stringify(job),
        );
      return { submit, close: async () => client.disconnect() };
    },
    async startWorker(place, { concurrency, handle }) {
      const client = clientOf(place);
      const owner = String(process.pid);
      const loops = runLoops(concurrency, async () => {
        for (const lane of place.lanes) {
          const taken = (await client.fcall(
            "floor_take",
            3,
            "job:",
            waitingIn(lane),
            "leased",
            owner,
            LEASE_MS,
          )) as [id: string, payload: string] | null;
          if (taken === null) continue;
          handle(JSON.parse(taken[1]) as Job);
          await client.fcall(
            "floor_finish",
            2,
            "job:",
            "leased",
            taken[0],
            owner,
          );
          return;
        }
        await pause(LOOK_MS);
      });
      return {
        async stop() {
          await loops.stop();
          client.disconnect();
        },
      };
    },
    async unfinished(place) {
      const client = clientOf(place);
      let count = await client.zcard("leased");
      for (const lane of place.lanes)
        count += await client.zcard(waitingIn(lane));
      client.disconnect();
      return count;
    },
  };
}

const waitingIn = (lane: string) => `waiting:${lane}`;

function clientOf({ url }: Place): Redis {
  const { hostname, port } = new URL(url);
  return new Redis({ host: hostname, port: Number(port) });
}
