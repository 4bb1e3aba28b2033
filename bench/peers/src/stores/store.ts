/** A store that systems are measured on: one for all of a run, with places in it that know nothing of each other. */

export type StoreName = "Valkey" | "Postgres" | "SQLite";

export interface Store {
  /** Version and settings, as the server itself tells them. */
  describe(): Promise<string>;
  /** An empty place, for one run of one system. */
  newPlace(): Promise<string>;
  removePlace(url: string): Promise<void>;
  /** What the server has done so far; absent where there is no server. */
  usage?(): Promise<Usage>;
  /** Bytes that everything in a place takes up. */
  storedBytes(url: string): Promise<number>;
  stop(): Promise<void>;
}

export interface Usage {
  readonly cpuMs?: number;
  /** Postgres: statements. Valkey: what it read from its clients, where several commands sent together count once. */
  readonly requests?: number;
}
