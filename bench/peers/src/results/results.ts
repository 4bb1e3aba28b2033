/** All that a run found, as it is written and read again. */
import type { Machine } from "@flowfabric/bench/machine";

import type { Figures } from "../rounds.js";
import type { FigureDescription, Scale } from "../scenarios/scenario.js";
import type { StoreName } from "../stores/store.js";

export interface SystemResult {
  readonly fullName: string;
  readonly name: string;
  readonly store: StoreName;
  readonly role: "ours" | "peer" | "floor";
  /** Package and version. */
  readonly versions: readonly string[];
  readonly settings: string;
  readonly lacks: string;
}

export interface Results extends Figures {
  readonly date: string;
  readonly command: string;
  readonly commit: string;
  readonly node: string;
  readonly machine: Machine;
  readonly stores: readonly {
    readonly name: StoreName;
    readonly description: string;
  }[];
  readonly scale: Scale;
  readonly systems: readonly SystemResult[];
  readonly descriptions: readonly FigureDescription[];
}
