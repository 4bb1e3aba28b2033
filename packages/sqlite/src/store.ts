/** What every operation of one opened store works with. */
import type { Database } from "./db.js";
import type { ParsedOptions } from "./options.js";
import type { Driver } from "./procedures/drive.js";
import type { Holders } from "./procedures/holders.js";
import type { Routes } from "./procedures/routes.js";
import type { Session } from "./session.js";
import type { Tails } from "./tails.js";
import type { Wakeups } from "./wakeups.js";

export interface Store {
  readonly db: Database;
  readonly wakeups: Wakeups;
  readonly tails: Tails;
  readonly routes: Routes;
  readonly holders: Holders;
  readonly driver: Driver;
  readonly options: ParsedOptions;
}

/** What procedures inside a transaction need: the session, and the store's memory. */
export type { Session };
