/**
 * The secrets that tokens are signed with: one signs, earlier ones verify until their grace is over. Kids never come back
 * while they verify. Source: specification 05 §3.2–3.5.
 */
import { refuse, type Refusal } from "../errors.js";

export interface InstalledSecret {
  readonly kid: string;
  readonly secretHex: string;
  /** Last millisecond in which it verifies. None on the current one; none on another one means that it is over. */
  readonly expiresAtMs?: number | undefined;
}

export interface Keystore {
  readonly currentKid?: string | undefined;
  readonly secrets: readonly InstalledSecret[];
}

/** The bytes of a secret, or nothing where what is stored is not clean hex. */
export function decodeSecret(secretHex: string): Buffer | undefined {
  return /^([0-9a-fA-F]{2})+$/.test(secretHex)
    ? Buffer.from(secretHex, "hex")
    : undefined;
}

function find(keystore: Keystore, kid: string): InstalledSecret | undefined {
  return keystore.secrets.find((secret) => secret.kid === kid);
}

export function secretOf(keystore: Keystore, kid: string): string | undefined {
  return find(keystore, kid)?.secretHex;
}

function isInGrace(secret: InstalledSecret, nowMs: number): boolean {
  const { expiresAtMs } = secret;
  return (
    Number.isSafeInteger(expiresAtMs) &&
    expiresAtMs! > 0 &&
    expiresAtMs! >= nowMs
  );
}

/** What tokens of this kid are checked with, or why they are refused. */
export function verifyingSecret(
  keystore: Keystore,
  kid: string,
  nowMs: number,
): string | Refusal {
  const secret = find(keystore, kid);
  if (secret === undefined) return refuse("invalid_token", {});
  return kid === keystore.currentKid || isInGrace(secret, nowMs)
    ? secret.secretHex
    : refuse("token_expired", {});
}

function isSameSecret(storedHex: string, givenHex: string): boolean {
  return decodeSecret(storedHex)?.equals(decodeSecret(givenHex)!) === true;
}

/** What a store has to do; `install` writes the given secret as the current one, without an expiry. */
export type SeedPlan =
  | { readonly kind: "install" }
  | { readonly kind: "alreadySeeded"; readonly sameSecret: boolean }
  | Refusal;

export function planSeed(
  keystore: Keystore,
  kid: string,
  secretHex: string,
): SeedPlan {
  const { currentKid } = keystore;
  if (currentKid === undefined) return { kind: "install" };
  if (currentKid !== kid)
    return refuse("invalid_input", {
      reason: `another kid signs already: '${currentKid}'; use rotateWaitpointHmacSecretAll`,
      field: "kid",
    });
  const stored = secretOf(keystore, kid);
  // A current kid that lost its secret is given it again.
  if (stored === undefined) return { kind: "install" };
  return { kind: "alreadySeeded", sameSecret: isSameSecret(stored, secretHex) };
}

export type RotationPlan =
  | {
      readonly kind: "rotate";
      /** Whose time is over or whose expiry cannot be read. */
      readonly removedKids: readonly string[];
      /** The kid that signed so far, and until when it verifies. */
      readonly previousKid?: string;
      readonly previousExpiresAtMs?: number;
    }
  | { readonly kind: "noop"; readonly repair: boolean }
  | Refusal;

export function planRotation(
  keystore: Keystore,
  newKid: string,
  newSecretHex: string,
  graceMs: number,
  nowMs: number,
): RotationPlan {
  const { currentKid } = keystore;
  const installed = find(keystore, newKid);
  if (newKid === currentKid) {
    if (installed === undefined) return { kind: "noop", repair: true };
    return isSameSecret(installed.secretHex, newSecretHex)
      ? { kind: "noop", repair: false }
      : refuse("rotation_conflict", { kid: newKid });
  }
  if (installed !== undefined && isInGrace(installed, nowMs))
    return refuse("rotation_conflict", { kid: newKid });
  const removedKids = keystore.secrets
    .filter((secret) => secret.kid !== currentKid && !isInGrace(secret, nowMs))
    .map(({ kid }) => kid);
  if (currentKid === undefined) return { kind: "rotate", removedKids };
  return {
    kind: "rotate",
    removedKids,
    previousKid: currentKid,
    previousExpiresAtMs: Math.min(nowMs + graceMs, Number.MAX_SAFE_INTEGER),
  };
}

export interface WaitpointHmacKids {
  readonly currentKid?: string;
  /** No longer signing, still accepted; by expiry, then kid. */
  readonly verifying: readonly {
    readonly kid: string;
    readonly expiresAtMs: number;
  }[];
}

export function listKids(keystore: Keystore, nowMs: number): WaitpointHmacKids {
  const { currentKid } = keystore;
  const verifying = keystore.secrets
    .filter((secret) => secret.kid !== currentKid && isInGrace(secret, nowMs))
    .map(({ kid, expiresAtMs }) => ({ kid, expiresAtMs: expiresAtMs! }))
    .sort((a, b) => a.expiresAtMs - b.expiresAtMs || (a.kid < b.kid ? -1 : 1));
  return currentKid === undefined ? { verifying } : { currentKid, verifying };
}
