/** What one benchmark of the engine found; rates are medians of its rounds, latencies are over all of them. */
import { latencyOf, median, type Latency } from "../statistics.js";

export interface Figure {
  readonly name: string;
  readonly perSecond?: number;
  /** Of one call. */
  readonly latency?: Latency;
  readonly bytes?: number;
  /** Of one core, by this process. */
  readonly cpuShare?: number;
  /** The longest time that the event loop was held up. */
  readonly stallMs?: number;
}

export interface FiguresOfBackend {
  readonly backend: string;
  readonly figures: readonly Figure[];
}

/** What one round gives. */
export interface Sample {
  readonly perSecond?: number;
  readonly latenciesMs?: readonly number[];
  readonly bytes?: number;
  readonly cpuShare?: number;
  readonly stallMs?: number;
}

export function figureOf(name: string, rounds: readonly Sample[]): Figure {
  const given = <T>(pick: (round: Sample) => T | undefined) =>
    rounds.map(pick).filter((value) => value !== undefined);
  const rates = given((round) => round.perSecond);
  const latencies = given((round) => round.latenciesMs).flat();
  const bytes = given((round) => round.bytes);
  const cpuShares = given((round) => round.cpuShare);
  const stalls = given((round) => round.stallMs);
  return {
    name,
    ...(rates.length > 0 ? { perSecond: median(rates) } : {}),
    ...(latencies.length > 0 ? { latency: latencyOf(latencies) } : {}),
    ...(bytes.length > 0 ? { bytes: median(bytes) } : {}),
    ...(cpuShares.length > 0 ? { cpuShare: median(cpuShares) } : {}),
    ...(stalls.length > 0 ? { stallMs: Math.max(...stalls) } : {}),
  };
}
