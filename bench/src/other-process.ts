/** A program of ours in a process of its own, which tells what it sees. */
import { fork } from "node:child_process";
import { on, once } from "node:events";
import { fileURLToPath } from "node:url";

/** A clock that all processes of one host share. */
export function hostClockMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export interface OtherProcess<News> extends AsyncDisposable {
  /** The next of its news; fails where it has ended instead. */
  told(): Promise<News>;
}

/** @param program compiled, beside the module that starts it */
export function startProcess<News>(
  program: URL,
  ...args: readonly string[]
): OtherProcess<News> {
  const child = fork(fileURLToPath(program), args);
  const news = on(child, "message", { close: ["exit"] });
  return {
    async told() {
      const { value, done } = await news.next();
      if (done === true) throw new Error("The other process ended.");
      return (value as [News])[0];
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exit = once(child, "exit");
      child.disconnect();
      await exit;
    },
  };
}

/** In the process that was started: aborts when it is to end. */
export function endOfProcess(): AbortSignal {
  const stop = new AbortController();
  process.on("disconnect", () => stop.abort());
  return stop.signal;
}

export function tell(news: object): void {
  // With a callback, that nobody listens any more is no error: then this process is about to end anyway.
  if (process.connected) process.send?.(news, undefined, {}, () => {});
}

/** Irregular, so that no rhythm of ours falls in with one of the store's. */
export async function untilIdle(): Promise<void> {
  const waitMs = 15 + Math.random() * 15;
  await new Promise((resolve) => setTimeout(resolve, waitMs));
}
