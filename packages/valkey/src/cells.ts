/**
 * Where things are. A cell is a complete small store: all its keys begin with one base, whose hash tag puts them on one
 * node, so that one call works on all of it. Standalone there is one cell; in a cluster there are several, and partitions
 * are dealt out to them in turn.
 */
import { parseExecutionId } from "@flowfabric/core";

import type { Argument, Connection, Reply } from "./connection.js";
import { StaleNumbers } from "./errors.js";
import { GroupedSubmissions } from "./procedures/grouped-submissions.js";
import { Holders } from "./procedures/holders.js";
import { Routes } from "./procedures/routes.js";

/** A store that is emptied again and again is somebody else's trouble. */
const TRIES_MAX = 3;

export class Cell {
  readonly index: number;
  /** Begins every key, and is itself the key of the cell's counters. */
  readonly base: string;
  readonly routes = new Routes(this);
  readonly holders = new Holders(this);
  readonly submissions = new GroupedSubmissions(this);
  /** Called where the store may have been emptied, before anything is written on the strength of that. */
  readonly restored: () => Promise<void>;
  readonly #connection: Connection;

  constructor(
    connection: Connection,
    prefix: string,
    index: number,
    restored: () => Promise<void>,
  ) {
    this.#connection = connection;
    this.restored = restored;
    this.index = index;
    this.base = `${prefix}:{${index}}`;
  }

  /**
   * Makes a call that sends numbers; again with fresh ones, where the store is not that which they came from. Of such a
   * call nothing was carried out.
   */
  async numbered<Answer>(body: () => Promise<Answer>): Promise<Answer> {
    for (let tries = 1; ; tries++) {
      try {
        return await body();
      } catch (error) {
        if (!(error instanceof StaleNumbers) || tries === TRIES_MAX)
          throw error;
      }
      await this.restored();
      this.holders.forget();
      this.routes.forget();
      await this.routes.refresh();
    }
  }

  /** As the connection has it. */
  during<Answer>(body: () => Promise<Answer>): Promise<Answer> {
    return this.#connection.during(body);
  }

  /** One function call. @throws EngineError what it refuses with; StaleNumbers */
  call(name: string, ...args: Argument[]): Promise<readonly Reply[]> {
    return this.#connection.call(this.base, name, args);
  }
}

export class Cells {
  readonly all: readonly Cell[];

  /** @param restored writes down again what the store was made with, where it may have been emptied */
  constructor(
    connection: Connection,
    prefix: string,
    count: number,
    restored: () => Promise<void>,
  ) {
    this.all = Array.from(
      { length: count },
      (_unused, index) => new Cell(connection, prefix, index, restored),
    );
  }

  /** What belongs to the store as a whole is here. */
  get first(): Cell {
    return this.all[0]!;
  }

  ofPartition(partition: number): Cell {
    return this.all[partition % this.all.length]!;
  }

  of(executionId: string): Cell {
    return this.ofPartition(parseExecutionId(executionId)!.partition);
  }
}
