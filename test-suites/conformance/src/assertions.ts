/** What the groups check in the same words. */
import { getEventListeners } from "node:events";

import {
  isEngineError,
  type EngineBackend,
  type EngineError,
  type ErrorCode,
  type ErrorDetails,
  type EventType,
} from "@flowfabric/core";
import { expect } from "vitest";

/** The call is refused with this code; with `detail`, its detail has at least these fields. */
export async function expectRefused<C extends ErrorCode>(
  call: Promise<unknown>,
  code: C,
  detail?: Partial<ErrorDetails[C]> | Record<string, unknown>,
): Promise<EngineError<C>> {
  const error = await call.then(
    (answer) => {
      throw new Error(
        `expected a refusal with ${code}, got the answer ${JSON.stringify(answer)}`,
      );
    },
    (thrown: unknown) => thrown,
  );
  if (!isEngineError(error)) throw error;
  expect(error.code).toBe(code);
  if (detail !== undefined) expect(error.detail).toMatchObject(detail);
  return error as unknown as EngineError<C>;
}

/** Everything that reads tell about one execution. */
export async function everythingAbout(
  backend: EngineBackend,
  executionId: string,
): Promise<object> {
  const ref = { executionId };
  return {
    snapshot: await backend.describeExecution(ref),
    attempts: await backend.listAttempts(ref),
    events: (await backend.readEvents(ref)).events,
    result: await backend.getExecutionResult(ref),
  };
}

/** {@link expectRefused}, and no read tells a difference afterwards. */
export async function expectRefusedUnchanged<C extends ErrorCode>(
  backend: EngineBackend,
  executionId: string,
  call: () => Promise<unknown>,
  code: C,
  detail?: Partial<ErrorDetails[C]> | Record<string, unknown>,
): Promise<void> {
  const before = await everythingAbout(backend, executionId);
  await expectRefused(call(), code, detail);
  expect(await everythingAbout(backend, executionId)).toEqual(before);
}

/** Types of the events of one execution, in order. */
export async function eventTypes(
  backend: EngineBackend,
  executionId: string,
): Promise<EventType[]> {
  const { events } = await backend.readEvents({ executionId });
  return events.map((event) => event.type);
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** How many listen to a signal's abort now. */
export function countListeners(signal: AbortSignal): number {
  return getEventListeners(signal, "abort").length;
}

/** How many do at most, over half a second: who waits looks again between. */
export async function mostListeners(signal: AbortSignal): Promise<number> {
  let most = 0;
  for (let look = 0; look < 20; look++) {
    await sleep(25);
    most = Math.max(most, countListeners(signal));
  }
  return most;
}

/** Looks until `look` finds something; the bound is at least ten times what is promised. */
export async function eventually<T>(
  look: () => Promise<T | undefined | false>,
  withinMs: number,
  what: string,
): Promise<T> {
  const until = performance.now() + withinMs;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > until)
      throw new Error(`${what}: not within ${withinMs} ms`);
    await sleep(20);
  }
}

/** The promise, or a failure that names what was waited for. */
export async function within<T>(
  ms: number,
  what: string,
  promise: Promise<T>,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new Error(`${what}: not within ${ms} ms`)),
      ms,
    );
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
