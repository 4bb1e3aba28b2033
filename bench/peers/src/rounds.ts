/** Systems in turn, round by round, so that what slows the machine for a while slows all of them. */
import { latencyOf, median, type Latency } from "@flowfabric/bench/statistics";

import type {
  Run,
  Sample,
  Samples,
  Scale,
  Scenario,
} from "./scenarios/scenario.js";
import type { Store, StoreName } from "./stores/store.js";
import { fullName, type MeasuredSystem } from "./systems/list.js";

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** One figure of one system, over its rounds. */
export interface Figure {
  readonly name: string;
  readonly system: string;
  readonly rounds: number;
  readonly perSecond?: Spread;
  /** Of all rounds together; spread is that of the rounds' medians. */
  readonly latency?: Latency & { readonly spread: Spread };
  /** Per job, medians. */
  readonly clientCpuMs?: number;
  readonly serverCpuMs?: number;
  readonly requests?: number;
  readonly bytes?: number;
}

interface Failure {
  readonly scenario: string;
  readonly system: string;
  readonly reason: string;
}

export interface Figures {
  readonly figures: readonly Figure[];
  readonly failures: readonly Failure[];
}

export async function measure(
  scenarios: readonly Scenario[],
  systems: readonly MeasuredSystem[],
  stores: ReadonlyMap<StoreName, Store>,
  scale: Scale,
  report: (line: string) => void,
  profiles?: string,
): Promise<Figures> {
  const figures: Figure[] = [];
  const failures: Failure[] = [];
  for (const scenario of scenarios) {
    const taking = systems.filter(
      ({ scenarios }) => scenarios?.includes(scenario.name) ?? true,
    );
    const rounds = new Map<MeasuredSystem, Samples[]>(
      taking.map((system) => [system, []]),
    );
    const measureOne = async (system: MeasuredSystem, told: string) => {
      const startMs = performance.now();
      const run: Run = {
        system,
        store: stores.get(system.store)!,
        scale,
        ...(profiles === undefined
          ? {}
          : {
              profile: { directory: profiles, name: told.replace("/", " of ") },
            }),
        perSecondOf: (name) =>
          figures.find(
            (figure) =>
              figure.name === name && figure.system === fullName(system),
          )?.perSecond?.median,
      };
      try {
        const samples =
          (await scenario.runRounds?.(run)) ??
          [await scenario.run?.(run)].filter((given) => given !== undefined);
        rounds.get(system)!.push(...samples);
        const tookS = ((performance.now() - startMs) / 1_000).toFixed(1);
        const text = samples.map(samplesText).join("; ");
        report(`${told}: ${text === "" ? "–" : text} (${tookS} s)`);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        const { name } = scenario;
        failures.push({ scenario: name, system: fullName(system), reason });
        report(`${told}: failed: ${reason}`);
      }
    };
    const turns = scenario.runRounds === undefined ? scale.rounds : 1;
    for (let turn = 0; turn < turns; turn++) {
      // Who comes after whom changes, for the one before may have left something to do.
      const inTurn = turn % 2 === 0 ? taking : taking.toReversed();
      for (const system of inTurn) {
        // Who has no such thing, or failed, is not asked again.
        const done = rounds.get(system)!;
        const last = done.at(-1);
        if (done.length < turn || (last && Object.keys(last).length === 0))
          continue;
        await measureOne(
          system,
          `${scenario.name} ${turn + 1}/${turns} ${fullName(system)}`,
        );
      }
    }
    for (const { name } of scenario.figures)
      for (const [system, samples] of rounds) {
        const given = samples
          .map((round) => round[name])
          .filter((sample) => sample !== undefined);
        if (given.length > 0)
          figures.push(figureOf(name, fullName(system), given));
      }
  }
  return { figures, failures };
}

function figureOf(
  name: string,
  system: string,
  rounds: readonly Sample[],
): Figure {
  const given = (pick: (sample: Sample) => number | undefined) =>
    rounds.map(pick).filter((value) => value !== undefined);
  const middle = (
    key: "clientCpuMs" | "serverCpuMs" | "requests" | "bytes",
  ) => {
    const values = given((sample) => sample[key]);
    return values.length === 0 ? {} : { [key]: median(values) };
  };
  const rates = given((sample) => sample.perSecond);
  const latencies = rounds.flatMap(({ latenciesMs = [] }) =>
    latenciesMs.length === 0 ? [] : [latenciesMs],
  );
  return {
    name,
    system,
    rounds: rounds.length,
    ...(rates.length === 0 ? {} : { perSecond: spreadOf(rates) }),
    ...(latencies.length === 0
      ? {}
      : {
          latency: {
            ...latencyOf(latencies.flat()),
            spread: spreadOf(latencies.map(median)),
          },
        }),
    ...middle("clientCpuMs"),
    ...middle("serverCpuMs"),
    ...middle("requests"),
    ...middle("bytes"),
  };
}

function spreadOf(values: readonly number[]): Spread {
  return {
    median: median(values),
    min: Math.min(...values),
    max: Math.max(...values),
  };
}

function samplesText(samples: Samples): string {
  const texts = Object.entries(samples).map(([name, sample]) => {
    const { perSecond, latenciesMs = [] } = sample!;
    const parts = [
      ...(perSecond === undefined ? [] : [`${Math.round(perSecond)}/s`]),
      ...(latenciesMs.length === 0
        ? []
        : [`p50 ${latencyOf(latenciesMs).p50Ms.toFixed(2)} ms`]),
    ];
    return `${name} ${parts.join(", ")}`;
  });
  return texts.join("; ");
}
