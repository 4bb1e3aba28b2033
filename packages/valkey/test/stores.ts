/** Stores that share a server: each has a prefix of its own, which begins all its keys. */
import { randomUUID } from "node:crypto";

import type { ValkeyOptions } from "@flowfabric/valkey";
import { clusterNodes, isClusterUrl } from "@flowfabric/valkey-testing";

export function newPrefix(): string {
  return `test_${randomUUID().replaceAll("-", "")}`;
}

/** The option that names the server. */
export function serverAt(
  url: string,
): Pick<ValkeyOptions, "url" | "clusterNodes"> {
  return isClusterUrl(url) ? { clusterNodes: clusterNodes(url) } : { url };
}
