/** What is measured on each store, in rounds. */
import type { EngineBackend } from "@flowfabric/core";

import type { MeasuredBackend } from "./backends.js";
import {
  figureOf,
  type Figure,
  type FiguresOfBackend,
  type Sample,
} from "./engine/figures.js";

export interface Benchmark<Scale> {
  readonly name: string;
  run(place: Place, scale: Scale): Promise<Sample>;
}

export interface Place {
  readonly measured: MeasuredBackend;
  readonly directory: string;
}

export type Measure<Scale> = (
  measured: MeasuredBackend,
  directory: string,
  scale: Scale,
  report: (figure: Figure) => void,
) => Promise<FiguresOfBackend>;

export function measuring<Scale extends { readonly rounds: number }>(
  benchmarks: readonly Benchmark<Scale>[],
): Measure<Scale> {
  return async (measured, directory, scale, report) => {
    const figures: Figure[] = [];
    for (const benchmark of benchmarks) {
      const rounds: Sample[] = [];
      for (let round = 0; round < scale.rounds; round++)
        rounds.push(await benchmark.run({ measured, directory }, scale));
      const figure = figureOf(benchmark.name, rounds);
      report(figure);
      figures.push(figure);
    }
    return { backend: measured.name, figures };
  };
}

/** A new one, gone afterwards. */
export async function withStore<Answer>(
  measured: MeasuredBackend,
  directory: string,
  use: (backend: EngineBackend, location: string) => Promise<Answer>,
): Promise<Answer> {
  const location = await measured.create(directory);
  try {
    await using backend = await measured.open(location);
    return await use(backend, location);
  } finally {
    await measured.remove(location);
  }
}
