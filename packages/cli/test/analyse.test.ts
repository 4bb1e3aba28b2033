import { describe, expect, test } from "vitest";

import { analyse } from "../src/demo/analyse.js";
import {
  idempotencyKeyOf,
  isFlaky,
  paceMs,
  paceScale,
} from "../src/demo/definition.js";
import { isText } from "../src/demo/files.js";
import { languageOf } from "../src/demo/language.js";

const bytes = (text: string) => new TextEncoder().encode(text);

describe("analyse", () => {
  test("counts a Markdown text, code fences left out of the headings", () => {
    const text = [
      "# Title",
      "",
      "Über uns: it's a [link](./a.md) and https://example.org/x.",
      "",
      "Second",
      "======",
      "",
      "```sh",
      "# a comment, no heading",
      "```",
      "## Third",
      "",
    ].join("\n");

    expect(analyse("docs/readme.md", bytes(text))).toEqual({
      language: "Markdown",
      bytes: Buffer.byteLength(text),
      lines: 11,
      words: 20,
      headings: 3,
      links: 2,
      longestLine: { length: 58, number: 3 },
      sha256:
        "66ca74cb39778c796958afdec25f88d6eb6d82508146eadef1ffb65b4d94d908",
    });
  });

  test("an empty file has no lines and no words", () => {
    expect(analyse("empty.txt", bytes(""))).toMatchObject({
      language: "Text",
      lines: 0,
      words: 0,
      longestLine: { length: 0, number: 0 },
      sha256:
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    });
  });

  test("lines end with CRLF too, and long ones are measured in characters", () => {
    expect(analyse("a.txt", bytes("ab\r\n😀😀😀\r\n"))).toMatchObject({
      lines: 2,
      longestLine: { length: 3, number: 2 },
    });
  });

  test("a comment sign is no heading where the language has none", () => {
    expect(analyse("a.py", bytes("# comment\n"))).toMatchObject({
      language: "Python",
      headings: 0,
    });
    expect(analyse("a.html", bytes("<h1>A</h1><h2 id=b>B</h2>"))).toMatchObject(
      { headings: 2 },
    );
  });
});

test("the language goes by extension, or by a well-known name", () => {
  expect(languageOf("src/a.b.TS")).toBe("TypeScript");
  expect(languageOf("deep/Dockerfile")).toBe("Dockerfile");
  expect(languageOf(".gitignore")).toBe("Text");
});

test("text is UTF-8 without zero bytes", () => {
  expect(isText(bytes("plain, über"))).toBe(true);
  expect(isText(new Uint8Array([65, 0, 66]))).toBe(false);
  expect(isText(new Uint8Array([0xff, 0xfe, 0x41]))).toBe(false);
});

describe("what is staged", () => {
  const files = Array.from({ length: 500 }, (_, n) => ({
    path: `file-${n}.txt`,
    sha256: "0".repeat(64),
  }));

  test("about one file in ten is flaky, the same ones every time", () => {
    const flaky = files.filter(isFlaky);
    expect(flaky.length).toBeGreaterThan(25);
    expect(flaky.length).toBeLessThan(85);
    expect(files.filter(isFlaky)).toEqual(flaky);
  });

  test("path and content decide the key", () => {
    const file = { path: "a.txt", sha256: "1".repeat(64) };
    const keys = [
      file,
      { ...file, path: "b.txt" },
      { ...file, sha256: "2".repeat(64) },
    ].map(idempotencyKeyOf);
    expect(new Set(keys).size).toBe(3);
    expect(idempotencyKeyOf({ ...file })).toBe(keys[0]);
  });

  test("many files are read faster, few at the full pace", () => {
    expect(paceScale(10, 6)).toBe(1);
    const scale = paceScale(10_000, 6);
    const totalMs = files.reduce((sum, file) => sum + paceMs(file, scale), 0);
    expect((totalMs / files.length) * (10_000 / 6)).toBeLessThan(12_000);
  });
});
