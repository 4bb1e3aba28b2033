/** What one benchmark of the engine found; rates are medians of its rounds, latencies are over all of them. */
import { latencyOf, median, type Latency } from "../statistics.js";

export interface Figure {
  readonly name: string;
  readonly perSecond?: number;
  /** Of one call. */
  readonly latency?: Latency;
  readonly bytes?: number;
  /** The longest time that the event loop was held up. */
  readonly stallMs?: number;
}

/** What one round gives. */
export interface Sample {
  readonly perSecond?: number;
  readonly latenciesMs?: readonly number[];
  readonly bytes?: number;
  readonly stallMs?: number;
}

export function figureOf(name: string, rounds: readonly Sample[]): Figure {
  const given = <T>(pick: (round: Sample) => T | undefined) =>
    rounds.map(pick).filter((value) => value !== undefined);
  const rates = given((round) => round.perSecond);
  const latencies = given((round) => round.latenciesMs).flat();
  const bytes = given((round) => round.bytes);
  const stalls = given((round) => round.stallMs);
  return {
    name,
    ...(rates.length > 0 ? { perSecond: median(rates) } : {}),
    ...(latencies.length > 0 ? { latency: latencyOf(latencies) } : {}),
    ...(bytes.length > 0 ? { bytes: median(bytes) } : {}),
    ...(stalls.length > 0 ? { stallMs: Math.max(...stalls) } : {}),
  };
}
