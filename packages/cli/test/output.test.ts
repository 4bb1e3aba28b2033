import { expect, test } from "vitest";

import { UsageError } from "../src/errors.js";
import { describeAddress, formatAddress, parseAddress } from "../src/open.js";
import { collectTag, parseDuration, wholeNumber } from "../src/options.js";
import { formatCount, formatDuration, tableLines } from "../src/output.js";
import { valkeyServer, type ValkeyAddress } from "../src/valkey.js";

/** What stands in an address wins over them. */
const OTHERS = { schema: "other", prefix: "other" };

test("durations are read in the units people write", () => {
  expect(parseDuration("250")).toBe(250);
  expect(parseDuration("250ms")).toBe(250);
  expect(parseDuration("1.5s")).toBe(1_500);
  expect(parseDuration("2d")).toBe(172_800_000);
  expect(() => parseDuration("5 minutes")).toThrow("Give a duration");
});

test("durations are written in the unit that fits", () => {
  expect(
    [0, 999, 999.7, 1_234, 59_949, 59_960, 200_000, 7_260_000, 90_000_000].map(
      formatDuration,
    ),
  ).toEqual([
    "0 ms",
    "999 ms",
    "1.00 s",
    "1.23 s",
    "59.9 s",
    "1 min",
    "3 min 20 s",
    "2 h 1 min",
    "1 d 1 h",
  ]);
});

test("numbers and tags are refused with what they should look like", () => {
  expect(wholeNumber(1, 9)("9")).toBe(9);
  expect(() => wholeNumber(1, 9)("10")).toThrow("from 1 to 9");
  expect(() => wholeNumber(0)("1.5")).toThrow("from 0");
  expect(collectTag("a=b=c", { x: "y" })).toEqual({ x: "y", a: "b=c" });
  expect(() => collectTag("a")).toThrow("key=value");
});

test("digits are grouped", () => {
  expect([7, 1_234, 1_234_567].map(formatCount)).toEqual([
    "7",
    "1 234",
    "1 234 567",
  ]);
});

test("columns are as wide as what is seen of them", () => {
  const bold = (_style: string, text: string) => `\u001b[1m${text}\u001b[22m`;
  expect(
    tableLines(
      [{ heading: "A" }, { heading: "N", align: "right" }],
      [
        ["\u001b[1mlong\u001b[22m", "1"],
        ["b", "20"],
      ],
      bold,
    ),
  ).toEqual([
    "\u001b[1mA      N\u001b[22m",
    "\u001b[1mlong\u001b[22m   1",
    "b     20",
  ]);
});

test("a store is a file or a schema of a server; people are shown no secret of it", () => {
  const file = (path: string) => ({ kind: "sqlite", path });
  expect(parseAddress("sqlite:/tmp/a.db")).toEqual(file("/tmp/a.db"));
  expect(parseAddress("sqlite:///tmp/a.db")).toEqual(file("/tmp/a.db"));
  expect(parseAddress("/tmp/b.db")).toEqual(file("/tmp/b.db"));
  expect(parseAddress(":memory:")).toEqual(file(":memory:"));

  const plain = parseAddress("postgres://me:secret@host:5433/db");
  expect(plain).toEqual({
    kind: "postgres",
    connectionString: "postgres://me:secret@host:5433/db",
    schema: "flowfabric",
  });
  expect(describeAddress(plain)).toBe(
    "postgres://me@host:5433/db?schema=flowfabric",
  );
  const chosen = parseAddress(
    "postgresql://host/db?sslmode=require&schema=shop",
  );
  expect(chosen).toMatchObject({
    connectionString: "postgresql://host/db?sslmode=require",
    schema: "shop",
  });
  for (const address of [plain, chosen, parseAddress("/tmp/b.db")])
    expect(parseAddress(formatAddress(address), OTHERS)).toEqual(address);
});

test("a store is a prefix of a Valkey or Redis, or of a cluster", () => {
  const plain = parseAddress("valkey://me:secret@host:7000/2");
  expect(plain).toEqual({
    kind: "valkey",
    url: "valkey://me:secret@host:7000/2",
    prefix: "ff",
  });
  expect(describeAddress(plain)).toBe("valkey://me@host:7000/2?prefix=ff");
  const chosen = parseAddress("rediss://:secret@host?family=6&prefix=shop");
  expect(chosen).toMatchObject({
    url: "rediss://:secret@host?family=6",
    prefix: "shop",
  });
  expect(describeAddress(chosen)).toBe("rediss://host?prefix=shop");
  const cluster = parseAddress(
    "valkey+cluster://me:a%40b@one:7000,[::1]:7001,three?prefix=shop",
  );
  expect(cluster).toEqual({
    kind: "valkey",
    url: "valkey+cluster://me:a%40b@one:7000,[::1]:7001,three",
    prefix: "shop",
  });
  expect(describeAddress(cluster)).toBe(
    "valkey+cluster://me@one:7000,[::1]:7001,three?prefix=shop",
  );
  expect(valkeyServer(cluster as ValkeyAddress)).toEqual({
    clusterNodes: [
      { host: "one", port: 7000 },
      { host: "::1", port: 7001 },
      { host: "three", port: 6379 },
    ],
    redisOptions: { username: "me", password: "a@b" },
  });
  for (const address of [plain, chosen, cluster])
    expect(parseAddress(formatAddress(address), OTHERS)).toEqual(address);
  for (const wrong of [
    "valkey://me:secret@one:7000,two:7000",
    "valkey+cluster://me:secret@one:7000,",
    "valkey:",
  ]) {
    const refused = () => parseAddress(wrong);
    expect(refused).toThrow(UsageError);
    expect(refused).not.toThrow(/secret/);
  }
});

test("other kinds of stores are refused without repeating the URL", () => {
  const refused = () => parseAddress("mysql://me:secret@host/db");
  expect(refused).toThrow(UsageError);
  expect(refused).toThrow(/kind "mysql:"/);
  expect(refused).not.toThrow(/secret/);
});
