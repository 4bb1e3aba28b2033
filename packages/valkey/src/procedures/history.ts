/** The events of one execution, as its history shows them. */
import type { Args, ExecutionEvent } from "@flowfabric/core";
import {
  toEvent,
  trimmedEvent,
  type HistoryRecord,
} from "@flowfabric/core/records";

import { listOf, optionalText, type Reply } from "../connection.js";
import { refOf } from "../rows.js";
import type { Store } from "../store.js";
import { toOptionalHolder } from "./holders.js";

/** From `after` on. The newest are shown, the first and every end too; a marker stands for each gap. */
export async function readHistory(
  store: Store,
  { executionId, namespace, after, limit }: Args<"readEvents">,
): Promise<ExecutionEvent[]> {
  const [createdAt, events] = await store.cells
    .of(executionId)
    .call(
      "read_events",
      refOf(executionId),
      namespace ?? "",
      after,
      limit,
      store.options.eventsPerExecution,
    );
  if (events === undefined) return [];
  return listOf(events).map((each) => {
    const values = listOf(each);
    if (values.length > 2)
      return toEvent(toHistoryRecord(values), toOptionalHolder(values[8]));
    const [fromSeq, toSeq] = values as readonly number[];
    return trimmedEvent(fromSeq!, toSeq!, createdAt as number);
  });
}

/** As told in lua/lib/history.lua says it; the ninth is the name of the holder. */
function toHistoryRecord(values: readonly Reply[]): HistoryRecord {
  return {
    n: values[0],
    at: values[1],
    type: values[2],
    actor: values[3],
    state: values[4],
    from_state: values[5],
    attempt: values[6],
    epoch: values[7],
    lease: values[9],
    attempt_id: values[10],
    reason: optionalText(values[11]),
    data: optionalText(values[12]),
  } as HistoryRecord;
}
