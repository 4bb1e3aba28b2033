/** Looking through many executions, in all cells. */
import { HOMES, type Home, type PublicState } from "@flowfabric/core";

import type { Argument } from "../connection.js";

/** So many rows are looked at in one call, however few of them fit: others wait meanwhile. */
export const LOOK_ROWS = 500;

export interface Filter {
  readonly namespace?: string | undefined;
  readonly lanes?: readonly string[] | undefined;
  readonly publicStates?: readonly PublicState[] | undefined;
}

/** As listing.read_filter in lua/lib/listing.lua reads it: five arguments. */
export function filterValues(filter: Filter): Argument[] {
  return [
    filter.namespace ?? "",
    ...linesOf(filter.lanes),
    ...linesOf(filter.publicStates && homesShownAs(filter.publicStates)),
  ];
}

function linesOf(list: readonly (string | number)[] | undefined): Argument[] {
  return list === undefined ? ["", ""] : ["1", list.join("\n")];
}

/** What time alone has changed counts as changed where these are compared. */
function homesShownAs(states: readonly PublicState[]): Home[] {
  const homes = Object.keys(HOMES).map(Number) as Home[];
  return homes.filter((home) => states.includes(HOMES[home].publicState));
}
