/** What a lease holder must hear: its lease ended by someone else's hand. */
import type { TaskEndedNotice } from "@flowfabric/core";
import {
  executionIdOf,
  toNotice,
  type NoticeRecord,
} from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import { listOf, optionalText, textOf, type Reply } from "../connection.js";
import { readRef } from "../rows.js";
import { rangeOf, type Position } from "./positions.js";

const SCAN_ENTRIES = 512;

/** Where a watch of a cell begins: behind everything so far. */
export async function newestPosition(cell: Cell): Promise<Position> {
  return (await rangeOf(cell)).newest;
}

/** Notices of one instance in a cell after a position, the position read up to, and whether there is more to be read. */
export async function noticesAfter(
  cell: Cell,
  after: Position,
  instanceId: string,
): Promise<{ position: Position; notices: TaskEndedNotice[]; more: boolean }> {
  const [position, more, notices] = await cell.call(
    "read_notices",
    after,
    SCAN_ENTRIES,
    instanceId,
  );
  return {
    position: textOf(position!),
    more: more === 1,
    notices: listOf(notices).map((each) => {
      const values = listOf(each);
      return toNotice(
        executionIdOf(readRef(values[0])),
        toNoticeRecord(values),
      );
    }),
  };
}

/** As read_notices in lua/functions/events.lua says it; the first is the ref. */
function toNoticeRecord(values: readonly Reply[]): NoticeRecord {
  return {
    epoch: values[1],
    type: values[2],
    state: values[3],
    reason: optionalText(values[4]),
    data: optionalText(values[5]),
  } as NoticeRecord;
}
