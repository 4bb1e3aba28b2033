/** Worker identities of a cell by number. Kept in memory; they are never changed. */
import type { WorkerId, WorkerInstanceId } from "@flowfabric/core";
import type { Holder } from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import { textOf, type Reply } from "../connection.js";

interface Numbered {
  readonly id: number;
  /** What vouches for the number, as numbers.are_stale in lua/lib/numbers.lua reads it. */
  readonly mark: string;
}

export class Holders {
  readonly #cell: Cell;
  readonly #numbers = new Map<string, Numbered>();

  constructor(cell: Cell) {
    this.#cell = cell;
  }

  /** The number of a worker instance; made at first use. */
  async ensure({ workerId, workerInstanceId }: Holder): Promise<Numbered> {
    const name = `${workerId}\n${workerInstanceId}`;
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    const [reply, mark] = await this.#cell.call(
      "ensure_holder",
      workerId,
      workerInstanceId,
    );
    const id = reply as number;
    const numbered = { id, mark: `${id} ${textOf(mark!)}` };
    this.#numbers.set(name, numbered);
    return numbered;
  }

  forget(): void {
    this.#numbers.clear();
  }
}

/** A name as holders.name in lua/lib/holders.lua gives it. */
export function toHolder(name: Reply): Holder {
  const [workerId, workerInstanceId] = textOf(name).split("\n");
  return {
    workerId: workerId as WorkerId,
    workerInstanceId: workerInstanceId as WorkerInstanceId,
  };
}

export function toOptionalHolder(name: Reply | undefined): Holder | undefined {
  return name === null || name === undefined ? undefined : toHolder(name);
}
