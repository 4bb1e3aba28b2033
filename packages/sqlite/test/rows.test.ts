/** Rows go in and out by position; the positions are those of the column lists. */
import {
  EXECUTION_COLUMNS,
  MUTABLE_COLUMNS,
  toExecutionRow,
} from "@flowfabric/core/sql";
import { expect, test } from "vitest";

import { toSavedValues } from "../src/rows.js";

const columns = EXECUTION_COLUMNS.split(", ");

test("every column is read from its own position", () => {
  const row = toExecutionRow(columns);

  expect(Object.keys(row)).toEqual(columns);
  expect(Object.values(row)).toEqual(columns);
});

test("every column that may change is saved at its own position, the key behind them", () => {
  expect(toSavedValues(toExecutionRow(columns))).toEqual([
    ...MUTABLE_COLUMNS,
    "seq",
  ]);
});
