import {
  type Args,
  type ExpiredLeaseInfo,
  type Implementation,
  type LeaseId,
  type ReclaimOperations,
} from "@flowfabric/core";
import { bytesToUuid, executionIdOf } from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import { toHolder } from "../procedures/holders.js";
import { routesJson } from "../procedures/routes.js";
import { toClaimedExecution } from "../procedures/take.js";
import { listOf, textOf, type Argument, type Reply } from "../connection.js";
import { readRef } from "../rows.js";
import type { Store } from "../store.js";
import { grantRequestValues, leaseValues, toIssuedGrant } from "./grants.js";
import { targetValues } from "./leases.js";

export function reclaimOperations(
  store: Store,
): Implementation<ReclaimOperations> {
  const { cells } = store;
  return {
    async issueReclaimGrant(args) {
      const { executionId } = args;
      const [outcome, second, expiresAt] = await cells
        .of(executionId)
        .call(
          "issue_reclaim_grant",
          ...targetValues(args),
          ...grantRequestValues(args),
        );
      const kind = textOf(outcome!) as Outcome<"issueReclaimGrant">;
      switch (kind) {
        case "granted": {
          const issued = { kind: "reclaim", lane: second, expiresAt } as const;
          return { kind, grant: toIssuedGrant(args, issued) };
        }
        case "notReclaimable":
          return { kind, executionId, detail: textOf(second!) };
        case "reclaimCapExceeded":
          return { kind, executionId, reclaimCount: second as number };
      }
    },

    async reclaimExecution(args) {
      const { executionId } = args;
      const cell = cells.of(executionId);
      const [outcome, second] = await cell.call(
        "reclaim_execution",
        ...targetValues(args),
        ...leaseValues(args),
        args.maxReclaimCount ?? "",
      );
      const kind = textOf(outcome!) as Outcome<"reclaimExecution">;
      switch (kind) {
        case "claimed":
          return {
            kind,
            claimed: toClaimedExecution(listOf(second)),
          };
        case "notReclaimable":
          return { kind, executionId, detail: textOf(second!) };
        case "reclaimCapExceeded":
          return { kind, executionId, reclaimCount: second as number };
        case "grantNotFound":
          return { kind, executionId };
      }
    },

    async listExpiredLeases(args) {
      if (args.limit === 0) return { entries: [] };
      const pages = await Promise.all(
        cells.all.map((cell) => expiredLeases(cell, args)),
      );
      const all = inOrder(pages.flat());
      const entries = all.slice(0, args.limit);
      const last = entries.at(-1);
      if (all.length <= args.limit || last === undefined) return { entries };
      return {
        entries,
        nextCursor: {
          expiresAtMs: last.expiresAtMs,
          executionId: last.executionId,
        },
      };
    },
  };
}

type Outcome<Name extends "issueReclaimGrant" | "reclaimExecution"> = Awaited<
  ReturnType<ReclaimOperations[Name]>
>["kind"];

/** Of one cell, one more than the limit at most. Many calls where much is due, so that none of them takes long. */
async function expiredLeases(
  cell: Cell,
  { namespace, asOfMs, after, limit }: Args<"listExpiredLeases">,
): Promise<ExpiredLeaseInfo[]> {
  await cell.routes.refresh();
  let found: ExpiredLeaseInfo[] = [];
  let asOf: Argument = asOfMs ?? "";
  let from: Argument[] = [1, "-inf", 0];
  for (;;) {
    const [instant, leases, place, score, pass] = await cell.numbered(() =>
      cell.call(
        "expired_leases",
        routesJson(cell.routes.matching(namespace, undefined)),
        asOf,
        after?.expiresAtMs ?? 0,
        ...from,
        cell.routes.mark,
      ),
    );
    const page = listOf(leases).map((lease) => toExpiredLease(listOf(lease)));
    const asked = page.filter(
      (lease) => after === undefined || compare(after, lease) < 0,
    );
    // One that was marked between two looks may have been seen twice.
    const byId = new Map(
      [...found, ...asked].map((lease) => [lease.executionId, lease]),
    );
    found = inOrder([...byId.values()]).slice(0, limit + 1);
    if (place === undefined) return found;
    asOf = instant as number;
    from = [place as number, textOf(score!), pass as number];
  }
}

function toExpiredLease([
  ref,
  lease,
  epoch,
  holder,
  expiresAt,
  attempt,
]: readonly Reply[]): ExpiredLeaseInfo {
  const { workerInstanceId } = toHolder(holder!);
  return {
    executionId: executionIdOf(readRef(ref)),
    leaseId: bytesToUuid(lease as Buffer) as LeaseId,
    leaseEpoch: epoch as number,
    workerInstanceId,
    expiresAtMs: expiresAt as number,
    attemptIndex: attempt as number,
  };
}

type Place = { readonly expiresAtMs: number; readonly executionId: string };

/** By expiry, then by the text of the id: the order that the cursor names. */
function compare(a: Place, b: Place): number {
  if (a.expiresAtMs !== b.expiresAtMs) return a.expiresAtMs - b.expiresAtMs;
  if (a.executionId === b.executionId) return 0;
  return a.executionId < b.executionId ? -1 : 1;
}

function inOrder(leases: ExpiredLeaseInfo[]): ExpiredLeaseInfo[] {
  return leases.sort(compare);
}
