import {
  HOME,
  HOMES,
  isRunnableHome,
  type Implementation,
  type MaintenanceOperations,
  type SweepName,
  type SweepResult,
} from "@flowfabric/core";
import {
  effectiveNow,
  waitpointState,
  waitpointStateCode,
} from "@flowfabric/core/sql";

import { LOCK_CLASS } from "../migrate.js";
import { findExecution, saveExecution } from "../procedures/executions.js";
import { expire } from "../procedures/expiry.js";
import {
  markLapsedIfDue,
  promoteIfDue,
  ringAfterCommit,
} from "../procedures/lifecycle.js";
import { nextTimerAtMs, PORTIONS } from "../procedures/portions.js";
import { nextDueAtMs } from "../procedures/candidates.js";
import { forgetFrames, purgeDue } from "../procedures/purge.js";
import { reconcilePage } from "../procedures/reconcile.js";
import { timeOutSuspension } from "../procedures/suspension-timeout.js";
import {
  expireWaitpoint,
  findWaitpoint,
  nextPendingExpiryAtMs,
} from "../procedures/waitpoints.js";
import type { Session, Store } from "../store.js";

const RECONCILE_PAGE_ROWS = 500;

export function maintenanceOperations(
  store: Store,
): Implementation<MaintenanceOperations> {
  const { db } = store;
  return {
    async sweep({ name, limit }) {
      return await db.write(async (tx): Promise<SweepResult> => {
        await tx.get(TAKE_TURNS);
        const routes = store.routes.all();
        const nowMs = tx.now();
        const processed = await PORTIONS[name]({
          store,
          tx,
          routes,
          nowMs,
          limit,
        });
        const more =
          name === "index_reconciler"
            ? store.driver.reconcileCursor.seq > 0
            : processed >= limit;
        const nextDue = await nextDueOf(store, tx, name);
        return {
          processed,
          more,
          ...(nextDue === undefined ? {} : { nextDueAtMs: nextDue }),
        };
      });
    },

    async markLeaseExpiredIfDue(args) {
      return await db.write(async (tx) => {
        const satisfied = (
          reason:
            | "execution_not_found"
            | "not_active"
            | "already_expired"
            | "already_revoked"
            | "not_yet_expired",
        ) => ({ kind: "alreadySatisfied", reason }) as const;
        const row = await findExecution(store, tx, args);
        if (row === undefined) return satisfied("execution_not_found");
        if (HOMES[row.home].phase !== "active") return satisfied("not_active");
        if (row.home === HOME.lapsed) return satisfied("already_expired");
        if (row.home === HOME.revoked) return satisfied("already_revoked");
        if (!markLapsedIfDue(tx, row, effectiveNow(row, tx.now())))
          return satisfied("not_yet_expired");
        saveExecution(tx, row);
        ringAfterCommit(store, tx, row);
        return { kind: "markedExpired" } as const;
      });
    },

    async promoteDelayed(args) {
      return await db.write(async (tx) => {
        const row = await findExecution(store, tx, args);
        if (row === undefined) return { kind: "notFoundCleaned" } as const;
        if (!isRunnableHome(row.home))
          return { kind: "notRunnableCleaned" } as const;
        if (row.home !== HOME.delayed)
          return { kind: "notDelayedCleaned" } as const;
        if (!promoteIfDue(tx, row, effectiveNow(row, tx.now())))
          return { kind: "notYetDue" } as const;
        saveExecution(tx, row);
        ringAfterCommit(store, tx, row);
        return { kind: "promoted" } as const;
      });
    },

    async expireExecution(args) {
      return await db.write(async (tx) => {
        const row = await findExecution(store, tx, args);
        if (row === undefined) return { kind: "notFoundCleaned" } as const;
        return {
          kind: await expire(store, tx, row, args.reason, tx.now(), args),
        };
      });
    },

    async expireSuspension(args) {
      return await db.write(async (tx) => {
        const row = await findExecution(store, tx, args);
        return row === undefined
          ? ({ kind: "notFoundCleaned" } as const)
          : await timeOutSuspension(store, tx, row, tx.now());
      });
    },

    async expirePendingWaitpoint(args) {
      return await db.write(async (tx) => {
        const row = await findExecution(store, tx, args);
        const waitpoint =
          row && (await findWaitpoint(tx, row, args.waitpointId));
        if (row === undefined || waitpoint === undefined)
          return { kind: "noOp" } as const;
        const now = effectiveNow(row, tx.now());
        const isDue =
          waitpoint.state === waitpointStateCode("pending") &&
          waitpointState(waitpoint, now) === "expired";
        if (!isDue) return { kind: "noOp" } as const;
        expireWaitpoint(tx, waitpoint, now);
        return { kind: "expired" } as const;
      });
    },

    async trimRetention({
      partition,
      laneId,
      retentionMs = store.options.retentionMs,
      batchSize,
    }) {
      return await db.write(async (tx) => {
        const routes = store.routes.matching(
          undefined,
          laneId === undefined ? undefined : [laneId],
        );
        const purged = await purgeDue(
          store,
          tx,
          routes,
          retentionMs,
          tx.now(),
          batchSize,
          partition,
        );
        await forgetFrames(tx);
        return purged;
      });
    },

    async reconcileExecutionIndex({ partition }) {
      const cursor = { seq: 0 };
      let processed = 0;
      let errors = 0;
      for (;;) {
        // A page at a time, so that a large store is never locked for long.
        const page = await db.write(
          async (tx) =>
            await reconcilePage(
              store,
              tx,
              cursor,
              RECONCILE_PAGE_ROWS,
              partition,
            ),
        );
        processed += page.processed;
        errors += page.errors;
        if (!page.more) return { processed, errors };
      }
    },

    serverTimeMs: async () => {
      const [row] = await db.query<{ now: number }>(READ_CLOCK);
      return row!.now;
    },
  };
}

async function nextDueOf(
  store: Store,
  tx: Session,
  name: SweepName,
): Promise<number | undefined> {
  switch (name) {
    case "attempt_timeout":
    case "execution_deadline":
    case "suspension_timeout":
      return await nextTimerAtMs(tx);
    case "pending_wp_expiry":
      return await nextPendingExpiryAtMs(tx);
    case "delayed_promoter":
    case "lease_expiry":
      return await nextDueAtMs(tx, store.routes.all(), tx.now());
    default:
      return undefined;
  }
}

const READ_CLOCK = `
  SELECT now_ms() AS now`;

/**
 * A sweep passes over rows that others hold, who see to them. Another sweep would not: it may hold them for a reason of its own,
 * and nobody would come back for what was passed over.
 */
export const TAKE_TURNS = `SELECT pg_advisory_xact_lock(${LOCK_CLASS}, hashtext('sweeps of {schema}'))`;
