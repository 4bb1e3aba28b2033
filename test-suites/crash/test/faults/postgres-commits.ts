/**
 * Connections lost at the instant of a commit: the caller cannot know whether it happened. What the SDK repeats must
 * find out, and nothing may happen twice.
 */
import { Client, connect, type ClaimedTask } from "@flowfabric/sdk";
import type { EngineBackend } from "@flowfabric/core";
import { describe, expect, onTestFinished, test } from "vitest";

import { openStore } from "../../src/open.js";
import { machineMs } from "../../src/reports.js";
import { allEnded } from "../endings.js";
import { pause } from "../fleet.js";
import { scaled, tell, TIMEOUT_MS } from "../harness.js";
import { expectEndedOnce, Load } from "./load.js";
import {
  createPostgresBench,
  startProxy,
  type ServerOf,
} from "./postgres-bench.js";
import { tapTransactionEnds, type Fate } from "./postgres-wire.js";

const FATES = ["request lost", "reply lost"] as const;
/** Longer than any of this takes: what is claimed and lost would come back too late. */
const LEASE_TTL_MS = 60_000;
/** One call has a handful of transactions; beyond this a test would never end. */
const ENDS_MAX = 30;
/** What follows a call is said by then. */
const SETTLED_MS = 30;
/** Share of all ends in the run under load. */
const CUT_SHARE = 0.05;

export function postgresCommitTests(serverOf: ServerOf): void {
  describe(
    "postgres: connections lost at a commit",
    { timeout: TIMEOUT_MS },
    () => {
      for (const fate of FATES) {
        test(`a submission is acknowledged once, under its id and under its key (${fate})`, async () => {
          const { backend, direct, atEachEnd } = await prepare(serverOf, fate);
          const client = new Client({ backend });
          const acknowledged: string[] = [];
          for (const key of [undefined, "key"]) {
            await atEachEnd(`submit by ${key ?? "id"}`, async (round) => {
              const answer = await client.submit({
                executionKind: "work",
                inputPayload: Buffer.from("input"),
                ...(key === undefined
                  ? {}
                  : { idempotencyKey: `${key}-${round}` }),
              });
              // Its own first try is no earlier submission.
              expect(answer.kind).toBe("created");
              acknowledged.push(answer.executionId);
            });
          }
          await completeAll(direct, acknowledged.length);
          await expectEndedOnce(direct, acknowledged);
        });

        test(`a claim keeps its leases and a completion its acknowledgement (${fate})`, async () => {
          const { backend, direct, atEachEnd } = await prepare(serverOf, fate);
          await using connection = await connect({
            backend,
            leaseTtlMs: LEASE_TTL_MS,
            maxConcurrentTasks: 10 * ENDS_MAX,
          });
          const submitted = await submitMany(direct, 8 * ENDS_MAX);
          const held: ClaimedTask[] = [];
          await atEachEnd("claim", async () => {
            const tasks = await connection.claimMany({ max: 2 });
            expect(tasks).toHaveLength(2);
            held.push(...tasks);
          });
          // How many rounds each of the next two takes is not known before.
          const lacking = 4 * ENDS_MAX - held.length;
          if (lacking > 0)
            held.push(...(await connection.claimMany({ max: lacking })));
          await atEachEnd("complete", async () => {
            const task = held.pop()!;
            await repeated(() => task.complete({ done: true }));
          });
          await atEachEnd("fail", async () => {
            const task = held.pop()!;
            await repeated(() =>
              task.fail({ reason: "try again", category: "transient" }),
            );
          });
          // Leases that a lost reply took along would still be held, and not be claimed below.
          await Promise.all(held.map((task) => task.complete()));
          await completeAll(direct, submitted.length);
          await expectEndedOnce(direct, submitted);
        });

        test(`outcomes and the claim that rides with them each take effect once (${fate})`, async () => {
          const { backend, direct, atEachEnd } = await prepare(serverOf, fate);
          const submitted = await submitMany(direct, 8 * ENDS_MAX);
          const claim = {
            workerId: "rider",
            workerInstanceId: "rider",
            lanes: ["default"],
            max: 2,
            leaseTtlMs: LEASE_TTL_MS,
          };
          let { claimed } = await backend.claimMany(claim);
          await atEachEnd("completeAndClaim", async (round) => {
            const request = { ...claim, requestId: `request-${round}` };
            const answer = await repeated((repeat) =>
              backend.completeAndClaim({
                items: claimed.map(({ handle }) => ({ handle })),
                claim: { ...request, repeat },
              }),
            );
            expect(answer.results).toEqual([
              { kind: "completed" },
              { kind: "completed" },
            ]);
            expect(answer.claimed).toHaveLength(2);
            claimed = answer.claimed;
          });
          await direct.completeMany({
            items: claimed.map(({ handle }) => ({ handle })),
          });
          await completeAll(direct, submitted.length);
          await expectEndedOnce(direct, submitted);
        });
      }

      test("workers whose commits are cut at random, for as long as the load goes on, lose nothing", async () => {
        const { server, store } = createPostgresBench(serverOf());
        const cuts: Record<Fate, number> = {
          spared: 0,
          "request lost": 0,
          "reply lost": 0,
        };
        let share = 0;
        const proxy = await startProxy(server, () =>
          tapTransactionEnds(() => {
            const fate =
              Math.random() < share
                ? FATES[Math.floor(Math.random() * FATES.length)]!
                : "spared";
            cuts[fate]++;
            return fate;
          }),
        );
        const load = await Load.start({
          store: store({ through: proxy }),
          direct: store(),
        });
        share = CUT_SHARE;
        await pause(scaled(20_000, 4_000));
        share = 0;
        await load.recovered(
          `${cuts["request lost"]} requests and ${cuts["reply lost"]} replies of ${cuts.spared} lost`,
          machineMs(),
        );
        expect(cuts["request lost"]).toBeGreaterThan(0);
        expect(cuts["reply lost"]).toBeGreaterThan(0);
        await load.finish();
      });
    },
  );
}

interface Prepared {
  /** Through the proxy. */
  readonly backend: EngineBackend;
  readonly direct: EngineBackend;
  /** Makes the call with its first end cut, then with its second, until it comes through without a cut. */
  atEachEnd(
    what: string,
    call: (round: string) => Promise<void>,
  ): Promise<void>;
}

async function prepare(serverOf: ServerOf, fate: Fate): Promise<Prepared> {
  const { server, store } = createPostgresBench(serverOf());
  let endsUntilCut = 0;
  let cut = false;
  const proxy = await startProxy(server, () =>
    tapTransactionEnds(() => {
      if (--endsUntilCut !== 0) return "spared";
      cut = true;
      return fate;
    }),
  );
  // What only listens is not to be counted.
  const backend = await openStore(
    `${store({ through: proxy })}&listen=${encodeURIComponent(server.url)}`,
  );
  onTestFinished(() => backend.close());
  const direct = await openStore(store());
  onTestFinished(() => direct.close());
  return {
    backend,
    direct,
    async atEachEnd(what, call) {
      for (let end = 1; end <= ENDS_MAX; end++) {
        let cuts = 0;
        // Twice: what else this process says to the store is counted as well, now and then.
        for (const which of ["first", "second"]) {
          await pause(SETTLED_MS);
          cut = false;
          endsUntilCut = end;
          await call(`${end}-${which}`);
          endsUntilCut = 0;
          if (cut) cuts++;
        }
        if (cuts > 0) continue;
        tell(`${what}: ${fate} at each of ${end - 1} ends`);
        expect(end).toBeGreaterThan(1);
        return;
      }
      throw new Error(`${what}: still cut after ${ENDS_MAX} rounds`);
    },
  };
}

/** What its caller does with a task whose ending did not land, and the SDK's worker with all of them. */
async function repeated<Answer>(
  call: (repeat: boolean) => Promise<Answer>,
): Promise<Answer> {
  return await call(false).catch(() => call(true));
}

async function submitMany(
  backend: EngineBackend,
  count: number,
): Promise<string[]> {
  const answers = await backend.submitMany({
    items: Array.from({ length: count }, () => ({
      executionKind: "work",
      policy: {
        retryPolicy: {
          maxRetries: 1,
          backoff: { type: "fixed" as const, delayMs: 0 },
        },
      },
    })),
  });
  return answers.flatMap((answer) =>
    answer.kind === "rejected" ? [] : [answer.executionId],
  );
}

/** Everything that can be claimed; waits for the end of the rest. */
async function completeAll(
  backend: EngineBackend,
  atMost: number,
): Promise<void> {
  for (let claims = 0; claims <= atMost; claims++) {
    const { claimed } = await backend.claimMany({
      workerId: "finisher",
      workerInstanceId: "finisher",
      lanes: ["default"],
      max: 100,
      leaseTtlMs: LEASE_TTL_MS,
    });
    if (claimed.length === 0) break;
    await backend.completeMany({
      items: claimed.map(({ handle }) => ({ handle })),
    });
  }
  await allEnded(backend, LEASE_TTL_MS / 2);
}
