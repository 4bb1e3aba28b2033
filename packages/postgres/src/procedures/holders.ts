/** Worker identities by number. Kept in memory; rows are never changed or removed while a lease may name them. */
import {
  engineError,
  type WorkerId,
  type WorkerInstanceId,
} from "@flowfabric/core";
import type { Holder } from "@flowfabric/core/sql";

import { NotInMemory, type Database } from "../db.js";

export class Holders {
  readonly #byId = new Map<number, Holder>();
  readonly #ids = new Map<string, number>();

  /** Its number; made at first use, by a transaction of its own. */
  ensure(holder: Holder): number {
    const known = this.#ids.get(nameOf(holder));
    if (known !== undefined) return known;
    throw new NotInMemory((db) => this.create(db, holder));
  }

  async create(db: Database, holder: Holder): Promise<void> {
    if (this.#ids.has(nameOf(holder))) return;
    const { workerId, workerInstanceId } = holder;
    await db.query(INSERT_HOLDER, workerId, workerInstanceId);
    const [found] = await db.query<{ id: number }>(
      FIND_HOLDER,
      workerInstanceId,
      workerId,
    );
    this.#ids.set(nameOf(holder), found!.id);
    this.#byId.set(found!.id, { workerId, workerInstanceId });
  }

  require(id: number): Holder {
    const known = this.#byId.get(id);
    if (known !== undefined) return known;
    throw new NotInMemory((db) => this.#load(db, id));
  }

  find(id: number | null): Holder | undefined {
    return id === null ? undefined : this.require(id);
  }

  async #load(db: Database, id: number): Promise<void> {
    const [row] = await db.query<{ worker_id: string; instance_id: string }>(
      READ_HOLDER,
      id,
    );
    if (row === undefined)
      throw engineError("corruption", {
        context: "execution",
        field: "holder",
        message: `unknown holder ${id}`,
      });
    this.#byId.set(id, {
      workerId: row.worker_id as WorkerId,
      workerInstanceId: row.instance_id as WorkerInstanceId,
    });
  }
}

function nameOf({ workerId, workerInstanceId }: Holder): string {
  return `${workerId}\n${workerInstanceId}`;
}

const FIND_HOLDER = `
  SELECT id
  FROM holders
  WHERE instance_id = ? AND worker_id = ?`;

const INSERT_HOLDER = `
  INSERT INTO holders (worker_id, instance_id)
  VALUES (?, ?)
  ON CONFLICT DO NOTHING`;

const READ_HOLDER = `
  SELECT worker_id, instance_id
  FROM holders
  WHERE id = ?`;
