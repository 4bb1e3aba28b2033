/** CPU profiles of participants as text: where the time goes, by function, to be read and kept. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: {
      readonly functionName: string;
      readonly url: string;
      readonly lineNumber: number;
    };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

const LINES = 40;
const IDLE = new Set(["(idle)", "(program)"]);

/** Each profile in a folder becomes a text beside the others. */
export function profilesToText(directory: string): void {
  for (const name of readdirSync(directory)) {
    if (!name.endsWith(".cpuprofile")) continue;
    const file = join(directory, name);
    const profile = JSON.parse(readFileSync(file, "utf8")) as CpuProfile;
    rmSync(file);
    writeFileSync(
      file.replace(/\.cpuprofile$/, ".txt"),
      `${linesOf(profile).join("\n")}\n`,
    );
  }
}

function linesOf({ nodes, samples, timeDeltas }: CpuProfile): string[] {
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const selfMs = new Map<string, number>();
  const packageMs = new Map<string, number>();
  let busyMs = 0;
  let idleMs = 0;
  samples.forEach((id, nth) => {
    const tookMs = timeDeltas[nth]! / 1_000;
    const { functionName, url, lineNumber } = frames.get(id)!;
    if (IDLE.has(functionName)) {
      idleMs += tookMs;
      return;
    }
    busyMs += tookMs;
    const place = placeOf(url);
    const name = `${functionName || "(anonymous)"}  ${place}${lineNumber > 0 ? `:${lineNumber + 1}` : ""}`;
    add(selfMs, name, tookMs);
    add(packageMs, packageOf(place), tookMs);
  });
  const lines = (all: ReadonlyMap<string, number>) =>
    [...all]
      .sort(([, a], [, b]) => b - a)
      .slice(0, LINES)
      .map(
        ([name, tookMs]) =>
          `${((tookMs / busyMs) * 100).toFixed(1).padStart(5)} %  ${tookMs.toFixed(0).padStart(6)} ms  ${name}`,
      );
  return [
    `busy ${busyMs.toFixed(0)} ms, idle or in the system ${idleMs.toFixed(0)} ms; time of a function's own, share of busy`,
    "",
    ...lines(packageMs),
    "",
    ...lines(selfMs),
  ];
}

function add(all: Map<string, number>, name: string, tookMs: number): void {
  all.set(name, (all.get(name) ?? 0) + tookMs);
}

/** From the package on. */
function placeOf(url: string): string {
  if (!url.startsWith("file:")) return url;
  return fileURLToPath(url).split("/node_modules/").at(-1)!;
}

function packageOf(place: string): string {
  // What the engine and Node's own native parts do has no file.
  if (place === "") return "(native)";
  if (place.startsWith("node:")) return "node";
  return place
    .split("/")
    .slice(0, place.startsWith("@") ? 2 : 1)
    .join("/");
}
