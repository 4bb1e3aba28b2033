/** What tails are called among those who want to be told: by their execution and what they can see. */
import {
  TAIL_VISIBILITIES,
  type ExecutionId,
  type TailVisibility,
} from "@flowfabric/core";

/** No lane's name has it. */
const MARK = "\t";

export function streamName(
  executionId: ExecutionId,
  visibility: TailVisibility,
): string {
  return `${MARK}${visibility} ${executionId}`;
}

/** Of all tails of an execution. */
export function namesOfStream(executionId: ExecutionId): string[] {
  return TAIL_VISIBILITIES.map((visibility) =>
    streamName(executionId, visibility),
  );
}

export function isStreamName(name: string): boolean {
  return name.startsWith(MARK);
}

export function parseStreamName(name: string): {
  readonly executionId: ExecutionId;
  readonly visibility: TailVisibility;
} {
  const [visibility, executionId] = name.slice(MARK.length).split(" ");
  return {
    executionId: executionId as ExecutionId,
    visibility: visibility as TailVisibility,
  };
}
