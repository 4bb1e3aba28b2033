/** Clusters for the tests: masters that share the slots evenly, and replicas of each where asked for. */
import {
  firstOf,
  freePorts,
  givenUrl,
  type ProgramFolder,
  type TestServer,
} from "@flowfabric/test-servers";

import { clusterNodes, clusterUrl, type Node } from "./addresses.js";
import { answering, infoField, until, withClient } from "./clients.js";
import {
  configurationText,
  programWays,
  QUICK,
  REPLICATING,
  startProcess,
  type RestartableServer,
  type Settings,
} from "./processes.js";
import { VALKEY } from "./products.js";
import { howToGet, inSync, OUTSIDE, requireDocker } from "./server.js";

const SLOTS = 16_384;
const MASTERS = 3;

const VARIABLE = "FLOWFABRIC_TEST_VALKEY_CLUSTER_URL";

/** Its address is of the form `valkey+cluster://host:port,host:port`. */
export interface TestCluster extends TestServer {
  readonly nodes: readonly Node[];
}

/** Nobody else's, so that slots may be moved and servers shut down. */
export interface OwnCluster extends TestCluster {
  /** The masters, then a replica of each, then the next one of each. */
  readonly servers: readonly RestartableServer[];
}

export interface OwnClusterOptions {
  readonly replicasPerMaster?: number;
  /** Of every node, such as `{ "cluster-node-timeout": "2000" }`: how soon a lost master is replaced. */
  readonly settings?: Settings;
}

/** For clusters that lose a master without a replica: the others go on, and it comes back with all that it had answered. */
export const OUTLIVING: Settings = {
  appendonly: "yes",
  appendfsync: "always",
  // Else all nodes refuse whatever they are asked while one is gone.
  "cluster-require-full-coverage": "no",
  "cluster-node-timeout": "1500",
};

/** Which master of a new cluster has a key. @param hash CRC16 of its hash tag */
export function masterOf(hash: number): number {
  let master = 0;
  while (firstSlot(master + 1, MASTERS) <= hash % SLOTS) master++;
  return master;
}

function firstSlot(master: number, masters: number): number {
  return Math.floor((master * SLOTS) / masters);
}

/** Three masters. */
export async function startCluster(): Promise<TestCluster> {
  const given = givenUrl(VARIABLE);
  if (given !== undefined)
    return { url: given, nodes: clusterNodes(given), stop: async () => {} };
  return firstOf<TestCluster>(
    howToGet(VALKEY, [
      `set ${VARIABLE} to valkey+cluster://<host>:<port>,<host>:<port>`,
      "start Docker",
    ]),
    [
      ["Docker", startContainer],
      ...programWays(VALKEY, (programs) => startProcesses(programs, {})),
    ],
  );
}

export function startOwnCluster(
  options: OwnClusterOptions = {},
): Promise<OwnCluster> {
  return firstOf(
    howToGet(VALKEY, []),
    programWays(VALKEY, (programs) => startProcesses(programs, options)),
  );
}

async function startProcesses(
  programs: ProgramFolder,
  { replicasPerMaster = 0, settings = {} }: OwnClusterOptions,
): Promise<OwnCluster> {
  const nodes = await newNodes(MASTERS * (1 + replicasPerMaster));
  const servers: RestartableServer[] = [];
  const stop = async () => {
    await Promise.all(servers.map((server) => server.stop()));
  };
  try {
    for (const node of nodes)
      servers.push(
        await startProcess(VALKEY, programs, {
          port: node.port,
          settings: { ...QUICK, ...nodeSettings(node), ...settings },
        }),
      );
    await join(nodes.slice(0, MASTERS), nodes.slice(MASTERS));
    await Promise.all(servers.slice(MASTERS).map(inSync));
    return { url: clusterUrl(nodes), nodes, servers, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** All nodes in one container, at the same ports inside as outside, so that they have one address for everybody. */
async function startContainer(): Promise<TestCluster> {
  requireDocker();
  const { GenericContainer } = await import("testcontainers");
  const nodes = await newNodes(MASTERS);
  const container = await new GenericContainer(VALKEY.image)
    .withCopyContentToContainer(
      nodes.map((node) => ({
        target: `/tmp/${node.port}.conf`,
        content: configurationText({
          ...OUTSIDE,
          ...QUICK,
          ...nodeSettings(node),
          port: String(node.port),
          "cluster-announce-ip": node.host,
        }),
        mode: 0o644,
      })),
    )
    .withExposedPorts(
      ...nodes.map(({ port }) => ({ container: port, host: port })),
    )
    .withCommand([
      "sh",
      "-c",
      `${nodes.map(({ port }) => `${VALKEY.program} /tmp/${port}.conf &`).join(" ")} wait`,
    ])
    .start();
  const stop = async () => void (await container.stop());
  try {
    await join(nodes, []);
    return { url: clusterUrl(nodes), nodes, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface NewNode extends Node {
  readonly busPort: number;
}

async function newNodes(count: number): Promise<NewNode[]> {
  const ports = await freePorts(2 * count);
  return ports.slice(0, count).map((port, index) => ({
    host: "127.0.0.1",
    port,
    busPort: ports[count + index]!,
  }));
}

function nodeSettings({ port, busPort }: NewNode): Settings {
  return {
    "cluster-enabled": "yes",
    // By default 10 000 above the other, which is not to be had for every free port.
    "cluster-port": String(busPort),
    "cluster-config-file": `nodes-${port}.conf`,
    ...REPLICATING,
  };
}

/**
 * Until it knows so many nodes, and takes what its slots are asked: a node that was stopped, or could not hear the others for
 * a while, refuses that until it has heard from most masters again, and as a master for some time more.
 */
export function takingPart(node: Node, knownNodes: number): Promise<void> {
  return until(async () => {
    const info = await withClient(node, (client) => client.cluster("INFO"));
    return (
      infoField(info, "cluster_state") === "ok" &&
      infoField(info, "cluster_known_nodes") === String(knownNodes)
    );
  }, `${node.host}:${node.port} takes part in the cluster`);
}

/** Makes one cluster of them, and waits until each of them takes part in it. */
async function join(
  masters: readonly NewNode[],
  replicas: readonly NewNode[],
): Promise<void> {
  const nodes = [...masters, ...replicas];
  const ask = (node: Node, ...args: readonly string[]) =>
    withClient(node, (client) => client.call("CLUSTER", ...args));
  for (const node of nodes) await answering(node);
  for (const [index, node] of masters.entries()) {
    const from = firstSlot(index, masters.length);
    const to = firstSlot(index + 1, masters.length) - 1;
    await ask(node, "ADDSLOTSRANGE", String(from), String(to));
    // Each its own, or the nodes have to sort that out among themselves.
    await ask(node, "SET-CONFIG-EPOCH", String(index + 1));
  }
  const [first, ...others] = nodes;
  for (const { host, port, busPort } of others)
    await ask(first!, "MEET", host, String(port), String(busPort));
  for (const node of nodes) await takingPart(node, nodes.length);
  for (const [index, node] of replicas.entries()) {
    const master = await ask(masters[index % masters.length]!, "MYID");
    await ask(node, "REPLICATE", String(master));
  }
}
