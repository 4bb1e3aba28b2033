/**
 * Routes by number: namespace, lane and required capabilities. Kept in memory; rows are never changed. Each transaction
 * begins with the newest number, so that those of other processes are read before they can be missed.
 */
import { missingCapabilities } from "@flowfabric/core";

import { NotInMemory, type Database } from "../db.js";

export interface Route {
  readonly id: number;
  readonly namespace: string;
  readonly lane: string;
  /** Sorted, without repeats. */
  readonly required: readonly string[];
}

export class Routes {
  readonly #byId = new Map<number, Route>();
  readonly #byName = new Map<string, Route>();
  readonly #byLane = new Map<string, Route[]>();
  #newest = 0;

  /** The route of a submission; made at first use, by a transaction of its own. */
  ensure(namespace: string, lane: string, required: readonly string[]): Route {
    const csv = required.join(",");
    const known = this.#byName.get(nameOf(namespace, lane, csv));
    if (known !== undefined) return known;
    throw new NotInMemory((db) => this.create(db, namespace, lane, required));
  }

  async create(
    db: Database,
    namespace: string,
    lane: string,
    required: readonly string[],
  ): Promise<void> {
    const csv = required.join(",");
    if (this.#byName.has(nameOf(namespace, lane, csv))) return;
    await db.query(INSERT_ROUTE, namespace, lane, csv);
    await this.refresh(db);
  }

  require(id: number): Route {
    const known = this.#byId.get(id);
    if (known !== undefined) return known;
    throw new NotInMemory((db) => this.refresh(db));
  }

  /** The greatest number that is known here; 0 for none. */
  get newest(): number {
    return this.#newest;
  }

  /** @param newest the greatest number that a look at the store found; 0 for none */
  isKnown(newest: number): boolean {
    return newest === 0 || this.#byId.has(newest);
  }

  /** A transaction saw this number; everything up to it is read. */
  async catchUp(db: Database, newest: number): Promise<void> {
    if (!this.isKnown(newest)) {
      throw new NotInMemory(() => this.refresh(db));
    }
  }

  /** All of them: numbers do not become visible in their order. */
  async refresh(db: Database): Promise<void> {
    const rows = await db.query<{
      id: number;
      namespace: string;
      lane: string;
      required: string;
    }>(ALL_ROUTES);
    for (const row of rows) {
      if (this.#byId.has(row.id)) continue;
      const route: Route = {
        id: row.id,
        namespace: row.namespace,
        lane: row.lane,
        required: row.required === "" ? [] : row.required.split(","),
      };
      this.#byId.set(row.id, route);
      this.#newest = Math.max(this.#newest, row.id);
      this.#byName.set(nameOf(row.namespace, row.lane, row.required), route);
      const ofLane = this.#byLane.get(row.lane);
      if (ofLane === undefined) this.#byLane.set(row.lane, [route]);
      else ofLane.push(route);
    }
  }

  /** All routes, oldest first. */
  all(): Route[] {
    return [...this.#byId.values()];
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
    return this.all().filter(
      (route) =>
        (namespace === undefined || route.namespace === namespace) &&
        (lanes === undefined || lanes.includes(route.lane)),
    );
  }
}

const INSERT_ROUTE = `
  INSERT INTO routes (namespace, lane, required)
  VALUES (?, ?, ?)
  ON CONFLICT DO NOTHING`;

const ALL_ROUTES = `
  SELECT id, namespace, lane, required
  FROM routes
  ORDER BY id`;

function nameOf(namespace: string, lane: string, requiredCsv: string): string {
  return `${namespace}\n${lane}\n${requiredCsv}`;
}
