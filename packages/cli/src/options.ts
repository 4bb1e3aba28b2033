/** Options that several commands take, and how their values are read. */
import { InvalidArgumentError, Option, type Command } from "commander";

export interface BackendOptions {
  /** As typed; `parseAddress` reads it. */
  readonly backend: string;
  readonly verbose?: true;
}

export interface StoreOptions extends BackendOptions {
  readonly namespace: string;
}

/** `--backend`, or `--db` for short, as every command spells it. */
export function backendOption(what: string): Option {
  return new Option(
    "--db, --backend <store>",
    `${what}: a file, postgres://<user>@<host>/<database>[?schema=<name>], or valkey://<host>:<port>[?prefix=<name>]`,
  );
}

/** Adds `--backend` and `--verbose`. */
export function withBackendOptions(command: Command): Command {
  return command
    .addOption(
      backendOption("the store")
        .env("FLOWFABRIC_DB")
        .default("./flowfabric.db"),
    )
    .option("--verbose", "show the stack and the causes of an error");
}

/** Adds `--namespace` to {@link withBackendOptions}. */
export function withStoreOptions(command: Command): Command {
  return withBackendOptions(
    command.option("--namespace <name>", "tenant to work in", "default"),
  );
}

const UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** `250ms`, `10s`, `5m`, `2h`, `1d`; a bare number counts milliseconds. */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(text.trim());
  if (match === null)
    throw new InvalidArgumentError(
      "Give a duration like 250ms, 10s, 5m, 2h or 1d.",
    );
  return Math.round(Number(match[1]) * (UNITS_MS[match[2] ?? "ms"] ?? 1));
}

/** A reader of whole numbers from `min` to `max`. */
export function wholeNumber(min: number, max = Number.MAX_SAFE_INTEGER) {
  return (text: string): number => {
    const value = Number(text);
    if (/^-?\d+$/.test(text) && value >= min && value <= max) return value;
    const upper = max === Number.MAX_SAFE_INTEGER ? "" : ` to ${max}`;
    throw new InvalidArgumentError(`Give a whole number from ${min}${upper}.`);
  };
}

/** `a,b` and repeated options both add up. */
export function collectList(text: string, earlier: string[] = []): string[] {
  const items = text.split(",").map((item) => item.trim());
  if (items.includes(""))
    throw new InvalidArgumentError("Give names separated by commas.");
  return [...earlier, ...items];
}

/** Repeated `key=value`. */
export function collectTag(
  text: string,
  earlier: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const at = text.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("Give a tag as key=value.");
  return { ...earlier, [text.slice(0, at)]: text.slice(at + 1) };
}
