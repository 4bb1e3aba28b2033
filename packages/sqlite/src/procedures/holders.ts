/** Worker identities by number. Kept in memory; rows are never changed or removed while a lease may name them. */
import {
  engineError,
  type WorkerId,
  type WorkerInstanceId,
} from "@flowfabric/core";
import type { Holder } from "@flowfabric/core/sql";

import type { Session } from "../session.js";

export class Holders {
  readonly #byId = new Map<number, Holder>();
  readonly #ids = new Map<string, number>();

  /** The transaction that made some of these is gone. */
  forget(): void {
    this.#byId.clear();
    this.#ids.clear();
  }

  ensure(tx: Session, holder: Holder): number {
    const name = `${holder.workerId}\n${holder.workerInstanceId}`;
    const known = this.#ids.get(name);
    if (known !== undefined) return known;
    const found =
      tx.get<{ id: number }>(
        FIND_HOLDER,
        holder.workerInstanceId,
        holder.workerId,
      ) ??
      tx.get<{ id: number }>(
        INSERT_HOLDER,
        holder.workerId,
        holder.workerInstanceId,
      )!;
    this.#ids.set(name, found.id);
    this.#byId.set(found.id, {
      workerId: holder.workerId,
      workerInstanceId: holder.workerInstanceId,
    });
    return found.id;
  }

  require(tx: Session, id: number): Holder {
    const known = this.#byId.get(id);
    if (known !== undefined) return known;
    const row = tx.get<{ worker_id: string; instance_id: string }>(
      READ_HOLDER,
      id,
    );
    if (row === undefined)
      throw engineError("corruption", {
        context: "execution",
        field: "holder",
        message: `unknown holder ${id}`,
      });
    const holder = {
      workerId: row.worker_id as WorkerId,
      workerInstanceId: row.instance_id as WorkerInstanceId,
    };
    this.#byId.set(id, holder);
    return holder;
  }

  find(tx: Session, id: number | null): Holder | undefined {
    return id === null ? undefined : this.require(tx, id);
  }
}

const FIND_HOLDER = `
  SELECT id
  FROM holders
  WHERE instance_id = ? AND worker_id = ?`;

const INSERT_HOLDER = `
  INSERT INTO holders (worker_id, instance_id)
  VALUES (?, ?)
  RETURNING id`;

const READ_HOLDER = `
  SELECT worker_id, instance_id
  FROM holders
  WHERE id = ?`;
