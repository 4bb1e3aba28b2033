import {
  HOME,
  isRefusal,
  missingCapabilities,
  refuse,
  type Args,
  type ClaimedExecution,
  type ExpiredLeaseInfo,
  type Grant,
  type Implementation,
  type LeaseId,
  type NotReclaimable,
  type ReclaimCapExceeded,
  type ReclaimOperations,
  type Refusal,
} from "@flowfabric/core";
import {
  bytesToUuid,
  changeDetails,
  effectiveNow,
  EXECUTION_COLUMNS,
  executionIdOf,
  type ExecutionRow,
  isAtReclaimCap,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import {
  lockExecution,
  saveExecution,
  selectExecutions,
} from "../procedures/executions.js";
import { hasLiveGrant, readGrant, writeGrant } from "../procedures/grants.js";
import {
  failAtReclaimCap,
  markLapsedIfDue,
  ringAfterCommit,
} from "../procedures/lifecycle.js";
import {
  findWorker,
  findWorkerAnywhere,
  isLive,
} from "../procedures/registry.js";
import { claimedExecution, takeExecution } from "../procedures/take.js";
import type { Session, Store } from "../store.js";
import { isOwnLease } from "./grants.js";

export function reclaimOperations(
  store: Store,
): Implementation<ReclaimOperations> {
  const { db } = store;
  return {
    async issueReclaimGrant(args) {
      return settle(await db.write(async (tx) => await issue(store, tx, args)));
    },

    async reclaimExecution(args) {
      return settle(
        await db.write(async (tx) => await reclaim(store, tx, args)),
      );
    },

    listExpiredLeases: (args) =>
      db.read(async (tx) => {
        const after = args.after ?? { expiresAtMs: -1, executionId: "" };
        const routes = store.routes
          .matching(args.namespace, undefined)
          .map(({ id }) => id);
        const rows = await selectExecutions(
          tx,
          EXPIRED_LEASES,
          routes,
          args.asOfMs ?? tx.now(),
          after.expiresAtMs,
          after.expiresAtMs,
          after.executionId,
          args.limit + 1,
        );
        const entries = rows
          .slice(0, args.limit)
          .map((row): ExpiredLeaseInfo => ({
            executionId: executionIdOf(row),
            leaseId: bytesToUuid(row.lease!) as LeaseId,
            leaseEpoch: row.epoch,
            workerInstanceId: store.holders.require(row.holder!)
              .workerInstanceId,
            expiresAtMs: row.lease_expires_at!,
            attemptIndex: row.attempt,
          }));
        const last = entries.at(-1);
        if (rows.length <= args.limit || last === undefined) return { entries };
        return {
          entries,
          nextCursor: {
            expiresAtMs: last.expiresAtMs,
            executionId: last.executionId,
          },
        };
      }),
  };
}

type Issued =
  | { readonly kind: "granted"; readonly grant: Grant }
  | NotReclaimable
  | ReclaimCapExceeded;

async function issue(
  store: Store,
  tx: Session,
  args: Args<"issueReclaimGrant">,
): Promise<Issued | Refusal> {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());
  const route = store.routes.require(row.route);
  const not = (detail: string): NotReclaimable => ({
    kind: "notReclaimable",
    executionId: args.executionId,
    detail,
  });

  if (markLapsedIfDue(tx, row, now)) {
    saveExecution(tx, row);
    ringAfterCommit(store, tx, row);
  }
  if (!isLost(row)) return not("execution_not_reclaimable");
  if (row.holds !== 0) return not("held");
  if (isAtReclaimCap(row))
    return {
      kind: "reclaimCapExceeded",
      executionId: args.executionId,
      reclaimCount: row.reclaims,
    };
  if (hasLiveGrant(row, now))
    return refuse("grant_already_exists", { expiresAtMs: row.grant_until! });
  const worker = await findWorker(tx, args.workerInstanceId, route.namespace);
  if (worker === undefined || !isLive(worker, now)) {
    const elsewhere = (
      await findWorkerAnywhere(tx, args.workerInstanceId)
    ).some((row) => isLive(row, now));
    return not(elsewhere ? "namespace_mismatch" : "worker_not_live");
  }
  const missing = missingCapabilities(
    route.required,
    new Set(args.workerCapabilities),
  );
  if (missing.length > 0) {
    changeDetails(row, { mismatchAtMs: now });
    saveExecution(tx, row);
    return not(`capability_mismatch: ${missing.join(",")}`);
  }

  const grant = writeGrant(tx, row, "reclaim", args, route.lane, now);
  saveExecution(tx, row);

  return { kind: "granted", grant };
}

type Reclaimed =
  | { readonly kind: "claimed"; readonly claimed: ClaimedExecution }
  | NotReclaimable
  | ReclaimCapExceeded
  | {
      readonly kind: "grantNotFound";
      readonly executionId: Args<"reclaimExecution">["executionId"];
    };

async function reclaim(
  store: Store,
  tx: Session,
  args: Args<"reclaimExecution">,
): Promise<Reclaimed | Refusal> {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());

  if (isOwnLease(store, row, args, now))
    return {
      kind: "claimed",
      claimed: await claimedExecution(store, tx, row, "reclaimed"),
    };
  if (!isLost(row))
    return {
      kind: "notReclaimable",
      executionId: args.executionId,
      detail: "execution_not_reclaimable",
    };
  // The grant first: without one nobody ends an execution, not even at its cap.
  const grant = await readGrant(tx, row);
  if (
    grant === undefined ||
    grant.kind !== "reclaim" ||
    grant.expires_at <= now ||
    grant.worker_id !== args.workerId
  ) {
    return { kind: "grantNotFound", executionId: args.executionId };
  }
  if (isAtReclaimCap(row, args.maxReclaimCount)) {
    const reclaimCount = row.reclaims;
    failAtReclaimCap(tx, row, now);
    saveExecution(tx, row);
    ringAfterCommit(store, tx, row);
    return {
      kind: "reclaimCapExceeded",
      executionId: args.executionId,
      reclaimCount,
    };
  }

  const claimed = (await takeExecution(store, tx, row, args, now))!;
  ringAfterCommit(store, tx, row);

  return { kind: "claimed", claimed };
}

function isLost(row: ExecutionRow): boolean {
  return row.home === HOME.lapsed || row.home === HOME.revoked;
}

/** By text of the id, for that is the order the cursor names. */
const ID_TEXT = `('{fp:' || partition || '}:' || id) COLLATE "C"`;

const EXPIRED_LEASES = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ANY(?::BIGINT[]) AND home IN (${HOME.active}, ${HOME.lapsed})
    AND lease_expires_at <= ? AND lease_expires_at >= ? AND (lease_expires_at > ? OR ${ID_TEXT} > ?)
  ORDER BY lease_expires_at, ${ID_TEXT}
  LIMIT ?`;
