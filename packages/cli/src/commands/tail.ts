import { once } from "node:events";

import type { StreamEvent, StreamQuery } from "@flowfabric/sdk";
import type { Command } from "commander";

import { EXIT_INTERRUPTED } from "../errors.js";
import { withStore } from "../open.js";
import { withStoreOptions, type StoreOptions } from "../options.js";
import { remark } from "../output.js";

interface TailOptions extends StoreOptions {
  readonly from: string;
  readonly lines?: true;
  readonly json?: true;
}

export function addTail(program: Command): void {
  withStoreOptions(
    program
      .command("tail <id>")
      .description(
        "write what an execution puts out, live and attempt after attempt, until it has ended",
      )
      .option(
        "--from <cursor>",
        "start, end, or the cursor after which to go on",
        "start",
      )
      .option("--lines", "a line for every frame")
      .option(
        "--json",
        "one JSON object per line, with cursors and the ends of attempts",
      ),
  ).action(tail);
}

async function tail(executionId: string, options: TailOptions): Promise<void> {
  const abort = new AbortController();
  const interrupt = () => abort.abort();
  process.once("SIGINT", interrupt);
  const { signal } = abort;
  let cursor: string | undefined;
  try {
    await withStore(options, { create: false }, async (client) => {
      const query = { executionId, ...positionOf(options.from) };
      for await (const event of client.stream(query, { signal })) {
        await write(options.json ? jsonLine(event) : shown(event, options));
        if (!options.json) tell(event);
        cursor = event.cursor;
      }
    });
  } finally {
    process.off("SIGINT", interrupt);
  }
  if (!signal.aborted) return;
  if (cursor !== undefined) remark(`\ngo on with --from ${cursor}`);
  process.exitCode = EXIT_INTERRUPTED;
}

function positionOf(from: string): Pick<StreamQuery, "after" | "from"> {
  return from === "start" || from === "end" ? { from } : { after: from };
}

/** A reader that is slower than the store slows us down; nothing gathers here. */
async function write(chunk: Uint8Array | string): Promise<void> {
  if (!process.stdout.write(chunk)) await once(process.stdout, "drain");
}

/** Byte for byte; the rest is for people. */
function shown(event: StreamEvent, { lines }: TailOptions): Uint8Array {
  if (event.kind !== "frame") return new Uint8Array();
  return lines
    ? Buffer.concat([event.payload, Buffer.from("\n")])
    : event.payload;
}

function tell(event: StreamEvent): void {
  if (event.kind === "gap") remark("\n(what came here is not kept any more)");
  else if (event.kind === "end")
    remark(
      `\nattempt ${event.attemptIndex} ended: ${event.reason.replaceAll("_", " ")}`,
    );
}

function jsonLine(event: StreamEvent): string {
  if (event.kind !== "frame") return `${JSON.stringify(event)}\n`;
  const { payload, isText, metadata, ...rest } = event;
  return `${JSON.stringify({
    ...rest,
    ...(metadata === undefined ? {} : { metadata }),
    ...(isText
      ? { text: event.text }
      : { base64: Buffer.from(payload).toString("base64") }),
  })}\n`;
}
