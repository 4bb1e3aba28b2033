/**
 * Routes of a cell by number: namespace, lane and required capabilities. Kept in memory; they are never changed, and what
 * other processes added is read by number. Where the server was emptied they are read anew: see lua/lib/numbers.lua.
 */
import { missingCapabilities } from "@flowfabric/core";

import type { Cell } from "../cells.js";
import { listOf, textOf, type Reply } from "../connection.js";
import { StaleNumbers } from "../errors.js";

export interface Route {
  readonly id: number;
  readonly namespace: string;
  readonly lane: string;
  /** Sorted, without repeats. */
  readonly required: readonly string[];
}

export class Routes {
  readonly #cell: Cell;
  readonly #all: Route[] = [];
  readonly #byLane = new Map<string, Route[]>();
  #refreshing: Promise<void> | undefined;
  #isKnown = false;
  /** Of the newest. */
  #mark = "";
  /** How often they were forgotten. */
  #epoch = 0;

  constructor(cell: Cell) {
    this.#cell = cell;
  }

  /** The newest that is known; routes are numbered from 1. */
  get newest(): number {
    return this.#all.length;
  }

  /** Changes when the numbers get another meaning. */
  get epoch(): number {
    return this.#epoch;
  }

  /** What vouches for all numbers that are known, as numbers.are_stale in lua/lib/numbers.lua reads it. */
  get mark(): string {
    return `${this.newest} ${this.#mark}`;
  }

  get all(): readonly Route[] {
    return this.#all;
  }

  ofLane(lane: string): readonly Route[] {
    return this.#byLane.get(lane) ?? [];
  }

  /** The routes of a lane whose work a worker may take. */
  serveable(
    lane: string,
    offered: ReadonlySet<string>,
    namespace: string | undefined,
  ): Route[] {
    return this.ofLane(lane).filter(
      (route) =>
        (namespace === undefined || route.namespace === namespace) &&
        missingCapabilities(route.required, offered).length === 0,
    );
  }

  matching(
    namespace: string | undefined,
    lanes: readonly string[] | undefined,
  ): Route[] {
    return this.#all.filter(
      (route) =>
        (namespace === undefined || route.namespace === namespace) &&
        (lanes === undefined || lanes.includes(route.lane)),
    );
  }

  find(id: number): Route | undefined {
    return this.#all[id - 1];
  }

  /** @throws StaleNumbers */
  async require(id: number): Promise<Route> {
    await this.catchUp(id);
    const route = this.find(id);
    if (route === undefined) throw new StaleNumbers();
    return route;
  }

  /** Reads up to a route that is there. */
  async catchUp(id: number): Promise<void> {
    // The first may be a read that began before it was.
    for (let reads = 1; id > this.newest && reads <= 2; reads++)
      await this.refresh();
  }

  /**
   * Reads what was not known when a call was made, which tells how many there are.
   * @returns whether there was any
   */
  async caughtUp(known: number, count: Reply | undefined): Promise<boolean> {
    if ((count as number) <= known) return false;
    await this.catchUp(count as number);
    return true;
  }

  /** They were read once; what is made later is told. */
  get areKnown(): boolean {
    return this.#isKnown;
  }

  /** Reads what other processes added. */
  refresh(): Promise<void> {
    this.#refreshing ??= this.#read().finally(
      () => (this.#refreshing = undefined),
    );
    return this.#refreshing;
  }

  /** Reads what was added until now, even where a read is under way that began before. */
  async refreshAnew(): Promise<void> {
    await this.#refreshing;
    await this.refresh();
  }

  /** The server was emptied: numbers begin anew. */
  forget(): void {
    this.#epoch++;
    this.#mark = "";
    this.#all.length = 0;
    this.#byLane.clear();
    this.#isKnown = false;
  }

  async #read(): Promise<void> {
    const epoch = this.#epoch;
    const answer = await this.#call();
    if (answer === undefined) await this.#cell.restored();
    if (answer === undefined || epoch !== this.#epoch) {
      if (epoch === this.#epoch) this.forget();
      return await this.#read();
    }
    const [names, mark] = answer;
    this.#mark = textOf(mark!);
    for (const name of listOf(names)) {
      const [namespace, lane, required] = textOf(name).split("\n");
      const route: Route = {
        id: this.newest + 1,
        namespace: namespace!,
        lane: lane!,
        required: required === "" ? [] : required!.split(","),
      };
      this.#all.push(route);
      const ofLane = this.#byLane.get(route.lane);
      if (ofLane === undefined) this.#byLane.set(route.lane, [route]);
      else ofLane.push(route);
    }
    this.#isKnown = true;
  }

  /** @returns nothing where what is known is of another store */
  async #call(): Promise<readonly Reply[] | undefined> {
    try {
      return await this.#cell.call("routes", this.mark);
    } catch (error) {
      if (error instanceof StaleNumbers) return undefined;
      throw error;
    }
  }
}

export function routesJson(routes: readonly { readonly id: number }[]): string {
  return JSON.stringify(routes.map(({ id }) => id));
}
