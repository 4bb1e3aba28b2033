import type { ExecutionPolicyInput } from "@flowfabric/core";
import type { Command } from "commander";

import { withStore } from "../open.js";
import {
  collectList,
  collectTag,
  parseDuration,
  wholeNumber,
  withStoreOptions,
  type StoreOptions,
} from "../options.js";
import { print, remark } from "../output.js";
import { readPayload } from "../payload.js";
import { awaitEnd, writeResult } from "./result.js";

interface SubmitOptions extends StoreOptions {
  readonly input?: string;
  readonly raw?: true;
  readonly lane?: string;
  readonly key?: string;
  readonly priority?: number;
  readonly delay?: number;
  readonly deadline?: number;
  readonly tag?: Record<string, string>;
  readonly maxRetries?: number;
  readonly retryDelay?: number;
  readonly attemptTimeout?: number;
  readonly requires?: string[];
  readonly wait?: number | true;
  readonly json?: true;
}

export function addSubmit(program: Command): void {
  withStoreOptions(
    program
      .command("submit <kind>")
      .description("submit one execution and print its id")
      .option(
        "--input <json>",
        "its input as JSON; @file reads a file, - reads stdin",
      )
      .option(
        "--raw",
        "take the input as it is, without checking that it is JSON",
      )
      .option("--lane <name>", "the queue it waits in")
      .option(
        "--key <text>",
        "idempotency key: the same key gives the same execution",
      )
      .option("--priority <n>", "0 to 9000, higher runs first", wholeNumber(0))
      .option(
        "--delay <duration>",
        "not before this long from now",
        parseDuration,
      )
      .option(
        "--deadline <duration>",
        "expires this long from now",
        parseDuration,
      )
      .option("--tag <key=value>", "may be given several times", collectTag)
      .option(
        "--max-retries <n>",
        "retries after the first attempt",
        wholeNumber(0),
      )
      .option(
        "--retry-delay <duration>",
        "the same pause before every retry, instead of a growing one",
        parseDuration,
      )
      .option(
        "--attempt-timeout <duration>",
        "longest run of one attempt",
        parseDuration,
      )
      .option(
        "--requires <list>",
        "capabilities that its worker must have",
        collectList,
      )
      .option(
        "--wait [duration]",
        "wait for its end and write its result to stdout (the id goes to stderr)",
        parseDuration,
      )
      .option("--json", "print the engine's answer as JSON"),
  ).action(submit);
}

async function submit(kind: string, options: SubmitOptions): Promise<void> {
  const inputPayload = readPayload("--input", options.input, options);
  const { lane, key, priority, delay, deadline, tag } = options;
  await withStore(options, { create: true }, async (client) => {
    const nowMs = Date.now();
    const answer = await client.submit({
      executionKind: kind,
      inputPayload,
      laneId: lane,
      idempotencyKey: key,
      priority,
      tags: tag,
      policy: policyOf(options),
      delayUntilMs: delay === undefined ? undefined : nowMs + delay,
      executionDeadlineAtMs:
        deadline === undefined ? undefined : nowMs + deadline,
    });
    if (answer.kind === "duplicate")
      remark(
        `duplicate: this key already names that execution${answer.mismatch ? ", which was submitted with other content" : ""}`,
      );
    const line = options.json ? JSON.stringify(answer) : answer.executionId;
    // With --wait stdout is the result's alone.
    if (options.wait === undefined) return print(line);
    remark(line);
    const end = await awaitEnd(client, answer.executionId, options.wait);
    writeResult(answer.executionId, end);
  });
}

/** Nothing where no retry, timeout or capability was asked for: the engine's own policy applies. */
function policyOf(options: SubmitOptions): ExecutionPolicyInput | undefined {
  const { maxRetries, retryDelay, attemptTimeout, requires } = options;
  const policy: ExecutionPolicyInput = {
    ...(maxRetries === undefined && retryDelay === undefined
      ? {}
      : {
          retryPolicy: {
            ...(maxRetries === undefined ? {} : { maxRetries }),
            ...(retryDelay === undefined
              ? {}
              : { backoff: { type: "fixed" as const, delayMs: retryDelay } }),
          },
        }),
    ...(attemptTimeout === undefined
      ? {}
      : { timeoutPolicy: { attemptTimeoutMs: attemptTimeout } }),
    ...(requires === undefined
      ? {}
      : { routingRequirements: { requiredCapabilities: requires } }),
  };
  return Object.keys(policy).length === 0 ? undefined : policy;
}
