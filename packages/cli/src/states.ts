/** The colour of a state, the same in every command. */
import type { PublicState } from "@flowfabric/core";

import { paint, type Style } from "./output.js";

const STATE_STYLES: { readonly [S in PublicState]: Style } = {
  waiting: "cyan",
  delayed: "cyan",
  rate_limited: "yellow",
  waiting_children: "cyan",
  active: "bold",
  suspended: "yellow",
  completed: "green",
  failed: "red",
  cancelled: "dim",
  expired: "red",
  skipped: "dim",
};

export function stateText(state: PublicState): string {
  return paint(STATE_STYLES[state], state);
}
