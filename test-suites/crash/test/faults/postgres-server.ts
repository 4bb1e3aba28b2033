/**
 * A Postgres that can be stopped and started again, and a way past everything under test to ask it something. Always one
 * of our own, for a server that others use as well is not ours to shut down.
 */
import {
  startRestartableServer,
  type RestartableServer,
  type Shutdown,
} from "@flowfabric/postgres-testing";
import pg from "pg";

/** Few, so that it takes little to use them all up. */
export const CONNECTIONS_MAX = 40;

export class PostgresServer {
  readonly #server: RestartableServer;

  private constructor(server: RestartableServer) {
    this.#server = server;
  }

  /** Made and started; whoever calls this removes it. */
  static async create(): Promise<PostgresServer> {
    return new PostgresServer(await startRestartableServer(CONNECTIONS_MAX));
  }

  get url(): string {
    return this.#server.url;
  }

  get port(): number {
    return this.#server.port;
  }

  /** Resolves when it answers. */
  start(): Promise<void> {
    return this.#server.start();
  }

  stop(shutdown: Shutdown): Promise<void> {
    return this.#server.shutDown(shutdown);
  }

  remove(): Promise<void> {
    return this.#server.stop();
  }

  /** A connection that belongs to nobody under test. */
  async connect(): Promise<pg.Client> {
    const client = new pg.Client({
      connectionString: this.url,
      application_name: "outsider",
    });
    // It may be cut off with the others; whoever uses it hears of that from its next query.
    client.on("error", () => {});
    await client.connect();
    return client;
  }

  /** Asks on a connection of its own. */
  async query<Row extends pg.QueryResultRow>(
    text: string,
    values: unknown[] = [],
  ): Promise<Row[]> {
    const client = await this.connect();
    try {
      return (await client.query<Row>(text, values)).rows;
    } finally {
      await client.end();
    }
  }
}
