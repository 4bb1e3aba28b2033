/** What all examples share: the store they are told, a namespace of their own, output, and a clean end. */
import { fork, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { parseArgs } from "node:util";

import {
  Client,
  isTransport,
  Worker,
  type WorkerOptions,
} from "@flowfabric/sdk";

import { findStore, openStore, startCommandOf, type Store } from "./stores.js";

export interface Example {
  readonly client: Client;
  /** Prints `[role] text`. */
  readonly log: (role: string, text: string) => void;
  /** Prints text as it comes. */
  readonly write: (text: string) => void;
  /** Runs from now until the end of the example. */
  readonly startWorker: (
    options: Omit<WorkerOptions, "backend" | "namespace">,
    register: (worker: Worker) => void,
  ) => void;
  /** A worker in a process of its own, which is ended with the example; it is told store and namespace. */
  readonly startProcess: (program: URL) => ChildProcess;
  /** Ends when the execution's history has an event of this type, told by the store and not by looking again and again. */
  readonly untilEvent: (executionId: string, type: string) => Promise<void>;
}

const EXIT_FAILED = 1;
const EXIT_NO_STORE = 2;
const EXIT_INTERRUPTED = 130;
/** An example takes seconds. */
const GUARD_MS = 60_000;

/** Runs an example to its end: exit code 0 where all that it asserts was so, 2 where there is no such store. */
export async function runExample(
  name: string,
  body: (example: Example) => Promise<void>,
): Promise<void> {
  const store = storeOfCommandLine(name);
  if (store === undefined) return;
  try {
    process.exitCode = await runOn(store, name, body);
  } finally {
    store.remove();
  }
}

function storeOfCommandLine(name: string): Store | undefined {
  const options = { backend: { type: "string", default: "sqlite" } } as const;
  try {
    const store = findStore(parseArgs({ options }).values.backend);
    if (store !== undefined) return store;
  } catch (error) {
    console.error((error as Error).message);
  }
  console.error(
    `usage: npm run example ${name} -- [--backend sqlite|postgres|valkey|<URL>]`,
  );
  process.exitCode = EXIT_FAILED;
  return undefined;
}

async function runOn(
  store: Store,
  name: string,
  body: (example: Example) => Promise<void>,
): Promise<number> {
  const backend = await openStore(store.url).catch((error: unknown) => {
    if (!isTransport(error)) throw error;
    console.error(`skipped: the store does not answer (${String(error)})`);
    console.error(`start one: ${startCommandOf(store.url)}`);
    return undefined;
  });
  if (backend === undefined) return EXIT_NO_STORE;
  await using _backend = backend;
  // Runs beside each other, and earlier ones, are not seen.
  const namespace = `example-${name}-${randomUUID()}`;
  await using client = new Client({ backend, namespace });
  const endings: (() => Promise<unknown>)[] = [];
  const output = new Output();
  const over = new AbortController();
  const example: Example = {
    client,
    log: (role, text) => output.line(`[${role}] ${text}`),
    write: (text) => output.text(text),
    startWorker(workerOptions, register) {
      const worker = new Worker({ ...workerOptions, backend, namespace });
      register(worker);
      const running = worker.run({ stopOn: [] });
      endings.push(async () => {
        await worker.stop();
        await running;
      });
    },
    startProcess(program) {
      const child = fork(program, [store.url, namespace]);
      const ended = once(child, "exit");
      endings.push(async () => {
        child.kill("SIGTERM");
        await ended;
      });
      return child;
    },
    async untilEvent(executionId, type) {
      const { signal } = over;
      for (let after = 0; ;) {
        signal.throwIfAborted();
        const { events } = await client.admin.tailEvents({
          ...{ executionId, after, signal },
          blockMs: 10_000,
        });
        if (events.some((event) => event.type === type)) return;
        after = events.at(-1)?.seq ?? after;
      }
    },
  };
  const interruption = interruptionOf(over.signal);
  try {
    const code = await Promise.race([
      body(example).then(() => 0),
      interruption,
    ]);
    if (code === 0) output.line(`PASS ${name}`);
    else await endAll(client, output);
    return code;
  } catch (error) {
    output.line(`FAIL ${name}`);
    console.error(error);
    return EXIT_FAILED;
  } finally {
    over.abort();
    await Promise.all(endings.map((end) => end()));
  }
}

/** Ctrl-C, or that it takes far too long. */
function interruptionOf(over: AbortSignal): Promise<number> {
  return new Promise((resolve) => {
    const interrupt = () => resolve(EXIT_INTERRUPTED);
    process.once("SIGINT", interrupt);
    const guard = setTimeout(() => {
      console.error(`not done after ${GUARD_MS / 1_000} s`);
      resolve(EXIT_FAILED);
    }, GUARD_MS);
    over.addEventListener("abort", () => {
      process.off("SIGINT", interrupt);
      clearTimeout(guard);
    });
  });
}

/** Says how far each execution was, and leaves none behind. */
async function endAll(client: Client, output: Output): Promise<void> {
  for await (const executionId of client.listAll()) {
    const snapshot = await client.inspect(executionId);
    output.line(`${executionId} was ${snapshot?.publicState}`);
    await client.cancel({ executionId, reason: "the example was stopped" });
  }
}

/** Lines begin at the margin, also behind text that ended in the middle of one. */
class Output {
  #atMargin = true;

  line(text: string): void {
    this.text(`${this.#atMargin ? "" : "\n"}${text}\n`);
  }

  text(text: string): void {
    process.stdout.write(text);
    this.#atMargin = text.endsWith("\n");
  }
}
