/**
 * Routes by number: namespace, lane and required capabilities. Kept in memory; rows are never changed, new ones of
 * other processes are read by number.
 */
import { missingCapabilities } from "@flowfabric/core";

import type { Session } from "../session.js";

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

  /** The transaction that made some of these is gone. */
  forget(): void {
    this.#byId.clear();
    this.#byName.clear();
    this.#byLane.clear();
    this.#newest = 0;
  }

  /** The route of a submission; made, with its lane, at first use. */
  ensure(
    tx: Session,
    namespace: string,
    lane: string,
    required: readonly string[],
  ): Route {
    const csv = required.join(",");
    const known = this.#byName.get(nameOf(namespace, lane, csv));
    if (known !== undefined) return known;
    if (tx.run(INSERT_ROUTE, namespace, lane, csv) > 0)
      tx.run(INSERT_LANE, lane);
    this.refresh(tx);
    return this.#byName.get(nameOf(namespace, lane, csv))!;
  }

  require(tx: Session, id: number): Route {
    const known = this.#byId.get(id);
    if (known !== undefined) return known;
    this.refresh(tx);
    return this.#byId.get(id)!;
  }

  /** Reads what other processes added; one look at an index where there is nothing. */
  refresh(tx: Session): void {
    for (const row of tx.all<{
      id: number;
      namespace: string;
      lane: string;
      required: string;
    }>(NEWER_ROUTES, this.#newest)) {
      const route: Route = {
        id: row.id,
        namespace: row.namespace,
        lane: row.lane,
        required: row.required === "" ? [] : row.required.split(","),
      };
      this.#newest = row.id;
      this.#byId.set(row.id, route);
      this.#byName.set(nameOf(row.namespace, row.lane, row.required), route);
      const ofLane = this.#byLane.get(row.lane);
      if (ofLane === undefined) this.#byLane.set(row.lane, [route]);
      else ofLane.push(route);
    }
  }

  /** All routes, oldest first. */
  all(tx: Session): Route[] {
    this.refresh(tx);
    return [...this.#byId.values()];
  }

  ofLane(tx: Session, lane: string): readonly Route[] {
    this.refresh(tx);
    return this.#byLane.get(lane) ?? [];
  }

  /** The routes of a lane whose work a worker may take, as of the last refresh: many lanes are asked for at once. */
  serveable(
    lane: string,
    offered: ReadonlySet<string>,
    namespace: string | undefined,
  ): Route[] {
    return (this.#byLane.get(lane) ?? []).filter(
      (route) =>
        (namespace === undefined || route.namespace === namespace) &&
        missingCapabilities(route.required, offered).length === 0,
    );
  }

  matching(
    tx: Session,
    namespace: string | undefined,
    lanes: readonly string[] | undefined,
  ): Route[] {
    return this.all(tx).filter(
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

const INSERT_LANE = `
  INSERT INTO lanes (lane)
  VALUES (?)
  ON CONFLICT DO NOTHING`;

export const NEWER_ROUTES = `
  SELECT id, namespace, lane, required
  FROM routes
  WHERE id > ?
  ORDER BY id`;

function nameOf(namespace: string, lane: string, requiredCsv: string): string {
  return `${namespace}\n${lane}\n${requiredCsv}`;
}
