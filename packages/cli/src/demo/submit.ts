/** Handing the files to the engine. Repeating it costs nothing: what is known already comes back by its key. */
import {
  BATCH_ITEMS_MAX,
  TERMINAL_EVENT_TYPES,
  type EngineBackend,
  type ExecutionId,
  type PublicState,
} from "@flowfabric/core";
import type { Client } from "@flowfabric/sdk";

import { RefusedError } from "../errors.js";
import { AnalyseFile, idempotencyKeyOf } from "./definition.js";
import type { TextFile } from "./files.js";

export interface SubmittedFile {
  readonly file: TextFile;
  readonly executionId: ExecutionId;
  /**
   * `new`: made by this run. `continued`: an earlier run submitted it and did not get to its end. `reused`: an
   * earlier run finished it.
   */
  readonly origin: "new" | "continued" | "reused";
}

export async function submitFiles(
  client: Client,
  backend: EngineBackend,
  lane: string,
  files: readonly TextFile[],
): Promise<SubmittedFile[]> {
  const submitted: SubmittedFile[] = [];
  for (let at = 0; at < files.length; at += BATCH_ITEMS_MAX) {
    const batch = files.slice(at, at + BATCH_ITEMS_MAX);
    const answers = await client.submitMany({
      items: batch.map((file) => ({
        definition: AnalyseFile,
        input: { path: file.path, sha256: file.sha256 },
        idempotencyKey: idempotencyKeyOf(file),
        laneId: lane,
      })),
    });
    for (const [index, file] of batch.entries()) {
      const answer = answers[index];
      if (answer === undefined || answer.kind === "rejected")
        throw new RefusedError(
          `the engine did not take ${file.path}: ${answer?.code ?? "no answer"}`,
        );
      const { executionId } = answer;
      const origin =
        answer.kind === "created"
          ? "new"
          : hasEnded(await backend.readExecutionState({ executionId }))
            ? "reused"
            : "continued";
      submitted.push({ file, executionId, origin });
    }
  }
  return submitted;
}

function hasEnded(state: PublicState | undefined): boolean {
  return TERMINAL_EVENT_TYPES.some((terminal) => terminal === state);
}
