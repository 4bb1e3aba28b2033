/** What is to be reached, and what a run says about it: ratios within one run, so that the machine cancels out. */
import type { Figure } from "../rounds.js";
import type { Results } from "./results.js";

interface Target {
  readonly ours: string;
  readonly figure: string;
  /** Another system, or another figure of ours; the best of several. Absent: an absolute latency. */
  readonly than?: readonly string[];
  readonly thanFigure?: string;
  /** Of rates: at least so many times; of latencies: at most. */
  readonly times?: number;
  readonly atMostMs?: number;
}

const POSTGRES_PEERS = [
  "BullMQ",
  "Graphile Worker",
  "Graphile Worker, batched",
  "pg-boss",
  "OpenWorkflow",
  "DBOS",
].map((name) => `${name} on Postgres`);

const OURS_BY_STORE = [
  "FlowFabric on Valkey",
  "FlowFabric on Postgres",
  "FlowFabric FULL on SQLite",
];

const TARGETS: readonly Target[] = [
  ...valkey("submit", "BullMQ", 1.2),
  ...valkey("bulk", "BullMQ", 2),
  ...valkey("drain", "BullMQ", 1.5),
  ...valkey("drain", "FCALL floor", 0.6),
  ...valkey("pickup", "BullMQ", 1),
  {
    ours: "FlowFabric on Postgres",
    figure: "submit",
    than: POSTGRES_PEERS,
    times: 1.2,
  },
  ...postgres("FlowFabric", "bulk", "BullMQ", 1.5),
  ...postgres("FlowFabric", "drain", "Graphile Worker", 2.5),
  ...postgres(
    "FlowFabric, prefetch 64",
    "drain",
    "Graphile Worker, batched",
    0.6,
  ),
  ...postgres("FlowFabric", "pickup", "Graphile Worker", 1.2),
  ...["submit", "drain"].flatMap((figure) => [
    ...sqlite("FULL", figure, "Plain loop FULL", 2),
    ...sqlite("NORMAL", figure, "Plain loop NORMAL", 1.2),
    ...sqlite("FULL", figure, "OpenWorkflow", 20),
  ]),
  ...OURS_BY_STORE.flatMap((ours): Target[] => [
    {
      ours,
      figure: "drain-behind",
      than: [ours],
      thanFigure: "drain",
      times: 0.8,
    },
    { ours, figure: "resume", atMostMs: 3 },
    {
      ours,
      figure: "drain-by-four",
      than: [ours],
      thanFigure: "drain",
      times: 1,
    },
    { ours, figure: "lanes", than: [ours], thanFigure: "drain", times: 0.8 },
  ]),
];

/** One line for each that this run can say something about. */
export function targetsTable(results: Results): string[] {
  return [
    "| | figure | target | measured | |",
    "|---|---|---|---|---|",
    ...TARGETS.flatMap((target) => {
      const told = tell(results, target);
      if (told === undefined) return [];
      return [
        `| ${target.ours} | ${titleOf(results, target.figure)} | ${told.wanted} | **${told.measured}** | ${told.reached ? "✓" : "missed"} |`,
      ];
    }),
  ];
}

function tell(
  results: Results,
  target: Target,
): { wanted: string; measured: string; reached: boolean } | undefined {
  const own = find(results, target.ours, target.figure);
  if (own === undefined) return undefined;
  if (target.atMostMs !== undefined) {
    const p50Ms = own.latency!.p50Ms;
    return {
      wanted: `p50 ≤ ${target.atMostMs} ms`,
      measured: `${p50Ms.toPrecision(2)} ms`,
      reached: p50Ms <= target.atMostMs,
    };
  }
  const others = (target.than ?? [])
    .map((system) => find(results, system, target.thanFigure ?? target.figure))
    .filter((figure) => figure !== undefined);
  if (others.length === 0) return undefined;
  const times = target.times!;
  if (own.perSecond !== undefined) {
    const best = others.reduce((a, b) =>
      b.perSecond!.median > a.perSecond!.median ? b : a,
    );
    const ratio = own.perSecond.median / best.perSecond!.median;
    return {
      wanted: `≥ ${times} × ${nameOfOther(results, target, best)}`,
      measured: `${ratio.toFixed(2)} ×`,
      reached: ratio >= times,
    };
  }
  const best = others.reduce((a, b) =>
    b.latency!.p50Ms < a.latency!.p50Ms ? b : a,
  );
  const ratio = own.latency!.p50Ms / best.latency!.p50Ms;
  return {
    wanted: `p50 ≤ ${times} × ${nameOfOther(results, target, best)}`,
    measured: `${ratio.toFixed(2)} ×`,
    reached: ratio <= times,
  };
}

function nameOfOther(results: Results, target: Target, other: Figure): string {
  return other.system === target.ours
    ? `its own “${titleOf(results, other.name)}”`
    : other.system;
}

function titleOf({ descriptions }: Results, figure: string): string {
  return descriptions.find(({ name }) => name === figure)?.title ?? figure;
}

function find(
  { figures }: Results,
  system: string,
  name: string,
): Figure | undefined {
  return figures.find(
    (figure) => figure.system === system && figure.name === name,
  );
}

function valkey(figure: string, than: string, times: number): Target[] {
  return [
    {
      ours: "FlowFabric on Valkey",
      figure,
      than: [`${than} on Valkey`],
      times,
    },
  ];
}

function postgres(
  ours: string,
  figure: string,
  than: string,
  times: number,
): Target[] {
  return [
    {
      ours: `${ours} on Postgres`,
      figure,
      than: [`${than} on Postgres`],
      times,
    },
  ];
}

function sqlite(
  durability: string,
  figure: string,
  than: string,
  times: number,
): Target[] {
  return [
    {
      ours: `FlowFabric ${durability} on SQLite`,
      figure,
      than: [`${than} on SQLite`],
      times,
    },
  ];
}
