import { readFileSync } from "node:fs";

import { ERROR_TABLE } from "@flowfabric/core";
import { expect, test } from "vitest";

test("docs/errors.md has a heading for every code and for no other", () => {
  const page = readFileSync(
    new URL("../../../docs/errors.md", import.meta.url),
    "utf8",
  );
  const headings = [...page.matchAll(/^### (\w+)$/gm)].map(([, code]) => code);
  expect(headings).toEqual(Object.keys(ERROR_TABLE));
});
