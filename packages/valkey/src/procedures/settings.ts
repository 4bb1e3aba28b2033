/**
 * What the first boot fixes, for it decides where ids live. Kept in the store's first cell, and by each process that has
 * the store open: who finds it emptied writes down again what it was made with, before others come with something else.
 */
import { engineError } from "@flowfabric/core";

import type { Cell } from "../cells.js";

export interface Wanted {
  readonly name: string;
  readonly value: number;
  /** The caller said so; a default gives way to what the store was made with. */
  readonly isGiven: boolean;
}

export class Settings {
  readonly #cell: Cell;
  readonly #standing = new Map<string, number>();

  /** @param cell the first one */
  constructor(cell: Cell) {
    this.#cell = cell;
  }

  /** @throws EngineError `invalid_input` where the store was made with another value than is given */
  async settle(wanted: readonly Wanted[]): Promise<readonly number[]> {
    const stored = (await this.#cell.call(
      "settle",
      ...wanted.flatMap(({ name, value }) => [name, value]),
    )) as readonly number[];
    for (const [index, { name, value, isGiven }] of wanted.entries()) {
      if (isGiven && stored[index] !== value)
        throw engineError("invalid_input", {
          reason: `the store was made with ${name} ${stored[index]}, not ${value}`,
          field: name.split(".")[0]!,
        });
      this.#standing.set(name, stored[index]!);
    }
    return stored;
  }

  /**
   * Where the store may have been emptied.
   * @throws EngineError `invalid_input` where somebody has made it anew with other values: this process has to open it anew
   */
  async restore(): Promise<void> {
    await this.settle(
      [...this.#standing].map(([name, value]) => ({
        name,
        value,
        isGiven: true,
      })),
    );
  }
}
