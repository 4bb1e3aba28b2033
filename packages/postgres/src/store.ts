/** What every operation of one opened store works with. */
import type { Database } from "./db.js";
import type { ParsedOptions } from "./options.js";
import type { Driver } from "./procedures/drive.js";
import type { FeedPages } from "./procedures/feeds.js";
import type { Floors } from "./procedures/floors.js";
import type { HeldLeases } from "./procedures/held-leases.js";
import type { HeldStreams } from "./procedures/held-streams.js";
import type { Holders } from "./procedures/holders.js";
import type { Horizon } from "./procedures/horizon.js";
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
  readonly horizon: Horizon;
  readonly feedPages: FeedPages;
  readonly leases: HeldLeases;
  readonly heldStreams: HeldStreams;
  readonly floors: Floors;
  readonly driver: Driver;
  readonly options: ParsedOptions;
}

/** What procedures inside a transaction need: the session, and the store's memory. */
export type { Session };
