/** A connection of the pool, and how it may end without taking the process with it. */
import type { Pool, PoolClient } from "pg";

/** A connection that breaks tells its queries; without a listener it would end the process as well. */
export const ignore = () => {};

/**
 * By callback, and listened to from its first moment: a server that ends a session as it lets it in says both in one
 * packet, and then the error comes before a promise of the connection resolves. Whoever releases it stops listening.
 */
export function takeConnection(pool: Pool): Promise<PoolClient> {
  return new Promise((resolve, reject) => {
    pool.connect((error, client) => {
      if (client === undefined) {
        reject(error ?? new Error("the pool gave no connection"));
        return;
      }
      client.on("error", ignore);
      resolve(client);
    });
  });
}
