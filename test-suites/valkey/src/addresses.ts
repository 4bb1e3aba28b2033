/**
 * Where a server is. A cluster is named by some of its nodes, `valkey+cluster://host:port,host:port`, from which clients
 * learn the others.
 */

export interface Node {
  readonly host: string;
  readonly port: number;
}

const CLUSTER = "valkey+cluster:";
const DEFAULT_PORT = 6379;

/** The driver knows only the names that Redis gave: it takes any other scheme for a host. */
export function driverUrl(url: string): string {
  return url.replace(/^valkey(s?):/, "redis$1:");
}

export function isClusterUrl(url: string): boolean {
  return url.startsWith(CLUSTER);
}

export function clusterUrl(nodes: readonly Node[]): string {
  return `${CLUSTER}//${nodes.map(({ host, port }) => `${host}:${port}`).join(",")}`;
}

/** @param url without user and password, which no server of the tests has */
export function clusterNodes(url: string): Node[] {
  if (!isClusterUrl(url))
    throw new Error(`not of the form ${CLUSTER}//host:port,host:port`);
  return url
    .slice(`${CLUSTER}//`.length)
    .replace(/[/?].*$/, "")
    .split(",")
    .map((node) => {
      // Not a scheme that leaves out a port of its own, as URL does for those it knows.
      const { hostname, port } = new URL(`node://${node}`);
      return {
        host: hostname.replace(/^\[(.*)\]$/, "$1"),
        port: port === "" ? DEFAULT_PORT : Number(port),
      };
    });
}
