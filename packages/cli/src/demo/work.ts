/** Running what is not finished yet: a crew of worker processes, one of which dies in the middle. */
import { randomBytes } from "node:crypto";

import type { CompletionEvent, EngineBackend } from "@flowfabric/core";

import { describeAddress, formatAddress, type StoreAddress } from "../open.js";
import { formatDuration, paint, plural, print } from "../output.js";
import { Crew } from "./crew.js";
import { isFlaky, paceScale, SLOWEST_PACE_MS } from "./definition.js";
import { FinishLine } from "./finish-line.js";
import { killWhileWorking, type Kill } from "./kill.js";
import { startProgress } from "./progress.js";
import type { SubmittedFile } from "./submit.js";

/** Short, so that what a killed worker held is taken over while somebody watches. */
export const LEASE_TTL_MS = 2_000;
export const SLOTS_PER_WORKER = 2;
/** Share of the work after which a worker is killed. */
const KILL_AT = 0.4;

export interface WorkPlan {
  readonly backend: EngineBackend;
  /** Begun before the submission, so that no end is missed. */
  readonly completions: AsyncIterable<CompletionEvent>;
  readonly address: StoreAddress;
  readonly folder: string;
  readonly lane: string;
  readonly workers: number;
  readonly kill: boolean;
  readonly interrupt: AbortSignal;
}

export interface Worked {
  readonly kill: Kill | undefined;
  readonly workerNames: ReadonlyMap<string, string>;
}

export async function work(
  plan: WorkPlan,
  open: readonly SubmittedFile[],
): Promise<Worked> {
  const { backend, workers, lane } = plan;
  announce(plan, open);
  const runId = randomBytes(3).toString("hex");
  const progress = startProgress(open.length);
  const crew = new Crew(
    {
      store: formatAddress(plan.address),
      folder: plan.folder,
      lane,
      concurrency: SLOTS_PER_WORKER,
      leaseTtlMs: LEASE_TTL_MS,
      paceScale: paceScale(open.length, workers * SLOTS_PER_WORKER),
    },
    runId,
    (line) => progress.note(paint("red", `✗ ${line}; the others go on`)),
  );
  const finished = new AbortController();

  let kill: Kill | undefined;
  let killing: Promise<void> | undefined;
  const killOne = async () => {
    kill = await killWhileWorking(crew, backend, lane, finished.signal);
    if (kill === undefined) return;
    progress.note(killNote(kill));
    if (crew.living.length === 0) {
      const name = `worker-${workers + 1}`;
      crew.hire(name);
      progress.note(`${name} takes its place, for nobody else was left`);
    }
  };
  const line = new FinishLine(
    open.map(({ executionId }) => executionId),
    (arrived) => {
      progress.update(arrived);
      if (plan.kill && arrived >= open.length * KILL_AT) killing ??= killOne();
    },
  );
  try {
    for (let n = 1; n <= workers; n++) crew.hire(`worker-${n}`);
    // So few may all be running before the first one ends.
    if (plan.kill && open.length <= workers * SLOTS_PER_WORKER)
      killing = killOne();
    await line.follow(
      plan.completions,
      AbortSignal.any([plan.interrupt, crew.failure]),
    );
  } finally {
    finished.abort();
    progress.end();
    if (plan.interrupt.aborted)
      print("Stopping: the workers finish what they hold.");
    await killing;
    await drain(crew);
  }
  if (plan.kill && kill === undefined)
    print(
      "All of it ended before a worker could be caught with work in hand, so none was killed.",
    );
  return { kill, workerNames: crew.names };
}

/** A second Ctrl-C does not wait for anybody. */
async function drain(crew: Crew): Promise<void> {
  const hurry = () => crew.killAll();
  process.on("SIGINT", hurry);
  try {
    await crew.drain();
  } finally {
    process.off("SIGINT", hurry);
  }
}

/** What is staged is said, and said beforehand. */
function announce(plan: WorkPlan, open: readonly SubmittedFile[]): void {
  const flaky = open.filter(
    ({ file, origin }) => origin === "new" && isFlaky(file),
  ).length;
  print(
    `${plural(plan.workers, "worker process", "worker processes")} on ${describeAddress(plan.address)}, ${SLOTS_PER_WORKER} files at once each`,
  );
  const staged = [
    `${plural(flaky, "first read")} will fail`,
    `each analysis is slowed down by up to ${SLOWEST_PACE_MS} ms`,
    ...(plan.kill
      ? [`one worker gets kill -9 at about ${KILL_AT * 100} % of the work`]
      : []),
  ];
  print(paint("dim", `Injected on purpose: ${staged.join("; ")}.`));
}

function killNote(kill: Kill): string {
  return paint(
    "red",
    `✗ kill -9 ${kill.worker} (pid ${kill.pid}) while it held ${plural(kill.held.length, "file")}; others take over when its lease of ${formatDuration(LEASE_TTL_MS)} lapses`,
  );
}
