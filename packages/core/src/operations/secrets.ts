import { z } from "zod";

import { SECRET_GRACE_MS_DEFAULT } from "../limits.js";
import type { WaitpointHmacKids } from "../rules/keystore.js";
import { isKid } from "../waitpoint-token.js";
import { refuseWith } from "./inputs.js";

const Kid = z.string().superRefine((kid, ctx) => {
  if (!isKid(kid)) refuseWith(ctx, "invalid_kid", {});
});

/** An even number of hex digits, in bounds. */
const secretHex = (min: number, max: number) =>
  z.string().superRefine((text, ctx) => {
    const fits = text.length >= min && text.length <= max;
    if (!fits || !/^([0-9a-fA-F]{2})+$/.test(text))
      refuseWith(ctx, "invalid_secret_hex", {});
  });

const GraceMs = z.unknown().transform((given, ctx): number => {
  if (Number.isSafeInteger(given) && (given as number) >= 0)
    return given as number;
  refuseWith(ctx, "invalid_grace_ms", {});
  return z.NEVER;
}) as unknown as z.ZodType<number, number>;

export const SeedSecretInput = z.object({
  /** 1 to 64 printable ASCII characters, without colon and pipe. */
  kid: Kid,
  /** 32 bytes, as hex. */
  secretHex: secretHex(64, 64),
});
export type SeedSecretInput = z.input<typeof SeedSecretInput>;

export const RotateSecretInput = z.object({
  newKid: Kid,
  /** 1 to 128 bytes, as hex; 32 are advised, fewer than 16 are weak. */
  newSecretHex: secretHex(2, 256),
  /** How long the key that signed so far still verifies. */
  graceMs: GraceMs.default(SECRET_GRACE_MS_DEFAULT),
});
export type RotateSecretInput = z.input<typeof RotateSecretInput>;

export type SeedSecretResult =
  | { readonly kind: "seeded"; readonly kid: string }
  | {
      readonly kind: "alreadySeeded";
      readonly kid: string;
      readonly sameSecret: boolean;
    };

export interface RotationEntry {
  /** Stores that keep their keys once for all have one entry, of partition 0. */
  readonly partition: number;
  readonly result:
    | {
        readonly kind: "rotated";
        readonly previousKid?: string;
        readonly newKid: string;
        /** Keys removed because their grace was over. */
        readonly gcCount: number;
      }
    | { readonly kind: "noop"; readonly kid: string }
    | {
        readonly kind: "rejected";
        readonly code: string;
        readonly detail: object;
      };
}

/** The keys that tokens of waitpoints are signed with. They never leave the store. */
export interface SecretOperations {
  /**
   * Installs the first key; to be called at every start. What is stored always wins.
   *
   * Atomic: probe and installation.
   * Checks: `invalid_kid`, `invalid_secret_hex`; another key signs already `invalid_input`.
   * Repeat: `alreadySeeded`; a kid that lost its secret is given it again.
   */
  seedWaitpointHmacSecret(input: SeedSecretInput): Promise<SeedSecretResult>;

  /**
   * Signs with a new key from now on. The old one verifies for `graceMs` more; earlier ones for what is left of their own
   * grace. Keys whose grace is over are removed.
   *
   * Atomic: per partition. One that fails, by whatever it is, is an entry `rejected`; repeating the call completes it.
   * Checks: `invalid_kid`, `invalid_secret_hex`, `invalid_grace_ms`; while another rotation is under way in this process
   * `concurrency_limit_exceeded`. In an entry: kid installed with another secret, or still in its grace,
   * `rotation_conflict`.
   * Repeat: `noop`.
   */
  rotateWaitpointHmacSecretAll(
    input: RotateSecretInput,
  ): Promise<{ readonly entries: RotationEntry[] }>;

  /** Which keys sign and verify now. */
  listWaitpointHmacKids(): Promise<WaitpointHmacKids>;
}
