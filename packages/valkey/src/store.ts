/** What every operation of one opened store works with. */
import type { Cells } from "./cells.js";
import type { Connection } from "./connection.js";
import type { ParsedOptions } from "./options.js";
import type { Driver } from "./procedures/drive.js";
import type { StreamReads } from "./procedures/stream-reads.js";
import type { Summaries } from "./procedures/summaries.js";
import type { Tails } from "./tails.js";
import type { Wakeups } from "./wakeups.js";

export interface Store {
  readonly connection: Connection;
  readonly cells: Cells;
  readonly wakeups: Wakeups;
  readonly tails: Tails;
  readonly streamReads: StreamReads;
  readonly summaries: Summaries;
  readonly driver: Driver;
  readonly options: ParsedOptions;
  /** Where the ids lie that are made for a key. */
  readonly partitionOfKey: (laneId: string, key: string) => number;
}
