/** The keys that tokens of waitpoints are signed with. Read anew by whoever needs them: another process may rotate. */
import type { Keystore } from "@flowfabric/core";
import { toKeystore, type SecretRow } from "@flowfabric/core/sql";

import type { Session } from "../session.js";

export async function readKeystore(tx: Session): Promise<Keystore> {
  return toKeystore(await tx.all<SecretRow>(READ_SECRETS));
}

/** For whoever changes it. There is no row to lock in an empty one, and two who install at once must not both. */
export async function lockKeystore(tx: Session): Promise<Keystore> {
  tx.run(LOCK_SECRETS);
  return await readKeystore(tx);
}

/** Makes this the secret that signs, whatever its kid was before. */
export function writeCurrentSecret(
  tx: Session,
  kid: string,
  secretHex: string,
): void {
  tx.run(WRITE_SECRET, kid, secretHex);
}

/** The kid that signed so far only verifies from now on. */
export function retireSecret(
  tx: Session,
  kid: string,
  expiresAtMs: number,
): void {
  tx.run(RETIRE_SECRET, expiresAtMs, kid);
}

export function deleteSecret(tx: Session, kid: string): void {
  tx.run(DELETE_SECRET, kid);
}

/** Readers go on: what they read holds until this commits. */
const LOCK_SECRETS = `
  LOCK TABLE {schema}.waitpoint_secrets IN SHARE ROW EXCLUSIVE MODE`;

const READ_SECRETS = `
  SELECT kid, secret, signs, expires_at
  FROM waitpoint_secrets
  ORDER BY kid`;

const WRITE_SECRET = `
  INSERT INTO waitpoint_secrets (kid, secret, signs, expires_at)
  VALUES (?, ?, TRUE, NULL)
  ON CONFLICT (kid) DO UPDATE
  SET secret = excluded.secret, signs = TRUE, expires_at = NULL`;

const RETIRE_SECRET = `
  UPDATE waitpoint_secrets
  SET signs = FALSE, expires_at = ?
  WHERE kid = ?`;

const DELETE_SECRET = `
  DELETE FROM waitpoint_secrets
  WHERE kid = ?`;
