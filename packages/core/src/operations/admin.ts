import { z } from "zod";

import type { Capabilities } from "../capabilities.js";
import type { BackendLabel } from "../handles.js";

export const ShutdownPrepareInput = z.object({
  graceMs: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
});
export type ShutdownPrepareInput = z.input<typeof ShutdownPrepareInput>;

/** The store as a process sees it. */
export interface AdminOperations {
  /** One round trip. @throws `transport`, `unavailable` */
  ping(): Promise<void>;

  /**
   * Brings the store to this library's version; once per boot, idempotent.
   * @throws `library_version_mismatch` where the store is newer than the library
   */
  prepare(): Promise<
    | { readonly kind: "noOp" }
    | { readonly kind: "applied"; readonly description: string }
  >;

  /**
   * Ends long waits: parked claims and tails return, feeds end, new ones answer `unavailable`, op `shutdown`; then
   * waits for calls in flight.
   * @throws `timeout`, op `shutdown_prepare`, where they take longer than `graceMs`
   */
  shutdownPrepare(input: ShutdownPrepareInput): Promise<void>;

  /** Part of every handle; handles of other labels are refused. */
  backendLabel(): BackendLabel;

  capabilities(): Capabilities;
}
