/** The process behind {@link Participant}: a system by its full name, and a place. */
import { randomBytes } from "node:crypto";

import { inFlight } from "@flowfabric/bench/in-flight";
import { hostClockMs } from "@flowfabric/bench/other-process";

import {
  PAYLOAD_BYTES,
  WARM_UP_SHARE,
  type Call,
  type Message,
  type ParticipantCalls,
  type Submitted,
} from "./participant.js";
import { systemByFullName } from "./systems/list.js";
import type {
  Job,
  Place,
  Producer,
  StartedWorker,
  WaitingProducer,
} from "./systems/system.js";

const PROGRESS_MS = 25;

const place = JSON.parse(process.argv[3]!) as Place;
const system = await systemByFullName(process.argv[2]!).load();
/** One text for all: whoever makes it is no part of what is measured. */
const text = randomBytes(PAYLOAD_BYTES).toString("base64");
const jobOf = (n: number, payloadBytes = PAYLOAD_BYTES): Job => ({
  n,
  text: text.slice(0, payloadBytes),
});
const laneOf = (n: number) => place.lanes[n % place.lanes.length]!;

let producer: Producer | undefined;
let waitingProducer: WaitingProducer | undefined;
let worker: StartedWorker | undefined;
const handled = { n: [] as number[], atMs: [] as number[] };

const calls: ParticipantCalls = {
  prepare: () => system.prepare(place),

  async openProducer() {
    producer = await system.openProducer(place);
  },

  closeProducer: () => producer!.close(),

  async submit({ count, inFlight: callers, maxMs, firstN, payloadBytes }) {
    const { submit } = producer!;
    return await timed(count, 1, maxMs, (calls, call) =>
      inFlight(callers, calls, (index) =>
        call(index, () =>
          submit(jobOf(firstN + index, payloadBytes), laneOf(index)),
        ),
      ),
    );
  },

  async submitMany({ count, perCall, maxMs, firstN, payloadBytes }) {
    const { submitMany } = producer!;
    if (submitMany === undefined) return undefined;
    return await timed(count, perCall, maxMs, (calls, call) =>
      inFlight(1, calls, (index) => {
        const jobs = Array.from({ length: perCall }, (_, nth) =>
          jobOf(firstN + index * perCall + nth, payloadBytes),
        );
        return call(index, () => submitMany(jobs, laneOf(index)));
      }),
    );
  },

  async submitAtRate({ perSecond, ms }) {
    const atMs: number[] = [];
    const open = new Set<Promise<unknown>>();
    const startMs = hostClockMs();
    const count = Math.floor((perSecond * ms) / 1_000);
    while (atMs.length < count) {
      const nowMs = hostClockMs();
      for (;;) {
        const dueMs = startMs + (atMs.length / perSecond) * 1_000;
        if (dueMs > nowMs || atMs.length >= count) break;
        const n = atMs.push(dueMs) - 1;
        const submitted = producer!
          .submit(jobOf(n), laneOf(n))
          .finally(() => open.delete(submitted));
        open.add(submitted);
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await Promise.all(open);
    return { atMs };
  },

  async submitOne(n) {
    const startMs = hostClockMs();
    await producer!.submit(jobOf(n), laneOf(n));
    return startMs;
  },

  async startWorker({ concurrency, tellEach }) {
    let told = 0;
    if (!tellEach)
      setInterval(() => {
        if (handled.n.length === told) return;
        told = handled.n.length;
        tell({ kind: "progress", handled: told });
      }, PROGRESS_MS).unref();
    worker = await system.startWorker(place, {
      concurrency,
      handle({ n }) {
        const atMs = hostClockMs();
        handled.n.push(n);
        handled.atMs.push(atMs);
        if (tellEach) tell({ kind: "handled", n, atMs });
      },
    });
  },

  async stopWorker() {
    await worker!.stop();
    return handled;
  },

  unfinished: () => system.unfinished(place),

  canWait: async () => system.waiting !== undefined,

  async startWaitingWorker() {
    worker = await system.waiting!.startWorker(place, {
      suspended: (token) => tell({ kind: "suspended", token }),
      resumed: () => tell({ kind: "resumed", atMs: hostClockMs() }),
    });
  },

  async openWaitingProducer() {
    waitingProducer = await system.waiting!.openProducer(place);
  },

  async submitWaiting(n) {
    await waitingProducer!.submit(n);
  },

  async signal(token) {
    const startMs = hostClockMs();
    await waitingProducer!.signal(token);
    return startMs;
  },

  async cpuMs() {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1_000;
  },
};

/** Calls of a series, of which a first share does not count, and none begins too late. */
async function timed(
  jobs: number,
  perCall: number,
  maxMs: number,
  run: (
    calls: number,
    call: (index: number, work: () => Promise<unknown>) => Promise<void>,
  ) => Promise<unknown>,
): Promise<Submitted> {
  const calls = Math.ceil(jobs / perCall);
  const latenciesMs: number[] = [];
  const beganMs = performance.now();
  let countsFromMs: number | undefined;
  let made = 0;
  await run(calls, async (index, work) => {
    const callMs = performance.now();
    const sinceMs = callMs - beganMs;
    if (sinceMs > maxMs) return;
    // Of the calls, or where they are slow of the time.
    const share = Math.max(index / calls, sinceMs / maxMs);
    if (share >= WARM_UP_SHARE) countsFromMs ??= callMs;
    const counts = countsFromMs !== undefined;
    made += 1;
    await work();
    if (counts) latenciesMs.push(performance.now() - callMs);
  });
  const tookMs = performance.now() - (countsFromMs ?? beganMs);
  return {
    count: made * perCall,
    perSecond: ((latenciesMs.length * perCall) / tookMs) * 1_000,
    latenciesMs,
  };
}

function tell(message: Message): void {
  process.send!(message, undefined, {}, () => {});
}

process.on("disconnect", () => process.exit());
process.on("message", ({ id, name, args }: Call) => {
  const call = calls[name] as (...args: readonly unknown[]) => Promise<unknown>;
  call(...args).then(
    (answer) => tell({ kind: "answer", id, answer }),
    (error: unknown) =>
      tell({
        kind: "failure",
        id,
        reason: error instanceof Error ? (error.stack ?? "") : String(error),
      }),
  );
});
