/** Ways to a server: the first that works is taken, and where none does it is said why each did not. */

export interface TestServer {
  readonly url: string;
  stop(): Promise<void>;
}

export type Way<Server extends TestServer> = readonly [
  name: string,
  start: () => Promise<Server>,
];

/** What the environment variable holds; an empty one counts as none. */
export function givenUrl(variable: string): string | undefined {
  const given = process.env[variable];
  return given === "" ? undefined : given;
}

/** Somebody else's, who stops it as well. */
export function givenServer(url: string): TestServer {
  return { url, stop: async () => {} };
}

/** @param help what to do where none starts */
export async function firstOf<Server extends TestServer>(
  help: string,
  ways: readonly Way<Server>[],
): Promise<Server> {
  const failures: string[] = [];
  for (const [name, start] of ways) {
    try {
      return await start();
    } catch (error) {
      failures.push(`  - ${name}: ${reason(error)}`);
    }
  }
  throw new Error([help, "What was tried:", ...failures].join("\n"));
}

/** One line of it. */
export function reason(error: unknown): string {
  const { message, stderr } = error as { message?: string; stderr?: unknown };
  const said = stderr instanceof Uint8Array ? Buffer.from(stderr) : "";
  return (said.toString().trim() || (message ?? String(error)))
    .replaceAll(/\s+/g, " ")
    .slice(-300);
}
