/**
 * Tokens of waitpoints: `kid:` and the HMAC-SHA-256 of what the waitpoint is. Nothing of a token is stored; it is made
 * again from the secret of its kid whenever it has to be shown. Source: specification 05 §3.
 */
import { createHmac, timingSafeEqual } from "node:crypto";

import { refuse, type Refusal } from "../errors.js";
import {
  parseToken,
  WaitpointToken,
  type ParsedToken,
} from "../waitpoint-token.js";
import {
  decodeSecret,
  secretOf,
  verifyingSecret,
  type Keystore,
} from "./keystore.js";

/** What a token is bound to. */
export interface TokenSubject {
  readonly executionId: string;
  readonly waitpointId: string;
  /** When the waitpoint was made; never changes. */
  readonly createdAtMs: number;
  readonly waitpointKey: string;
}

/** The key comes last, so that free text cannot shift a field. */
export function tokenDigest(
  secret: Uint8Array,
  kid: string,
  { executionId, waitpointId, createdAtMs, waitpointKey }: TokenSubject,
): string {
  return createHmac("sha256", secret)
    .update(
      [kid, executionId, waitpointId, createdAtMs, waitpointKey].join("|"),
    )
    .digest("hex");
}

/** A token under the current kid, or under the one that the waitpoint was made with. */
export function mintToken(
  keystore: Keystore,
  subject: TokenSubject,
  kid: string | undefined = keystore.currentKid,
): { readonly kid: string; readonly token: WaitpointToken } | Refusal {
  const secretHex = kid === undefined ? undefined : secretOf(keystore, kid);
  if (kid === undefined || secretHex === undefined)
    return refuse("hmac_secret_not_initialized", { op: "waitpoint_hmac" });
  const secret = decodeSecret(secretHex);
  if (secret === undefined) return refuse("invalid_secret", {});
  return {
    kid,
    token: new WaitpointToken(`${kid}:${tokenDigest(secret, kid, subject)}`),
  };
}

/** The token of a waitpoint made earlier, where its kid is still good; else it would open nothing. */
export function shownToken(
  keystore: Keystore,
  kid: string,
  subject: TokenSubject,
  nowMs: number,
): WaitpointToken | undefined {
  if (typeof verifyingSecret(keystore, kid, nowMs) !== "string")
    return undefined;
  const minted = mintToken(keystore, subject, kid);
  return "token" in minted ? minted.token : undefined;
}

/** For lists: which token it is, without being one. */
export function tokenFingerprint(token: WaitpointToken): string {
  return parseToken(token.reveal())!.digest.slice(0, 16);
}

/**
 * Checks 3 to 6 of a token whose form was found right. `found` is what the waitpoint's record says, absent where there is no
 * such waitpoint: the same work is then done for nothing, so that nobody learns from it what exists.
 */
export function validateToken(
  keystore: Keystore,
  token: ParsedToken,
  claimed: Pick<TokenSubject, "executionId" | "waitpointId">,
  found: Pick<TokenSubject, "createdAtMs" | "waitpointKey"> | undefined,
  nowMs: number,
): Refusal | undefined {
  if (keystore.currentKid === undefined)
    return refuse("hmac_secret_not_initialized", { op: "waitpoint_hmac" });
  const secretHex = verifyingSecret(keystore, token.kid, nowMs);
  if (typeof secretHex !== "string") return secretHex;
  const secret = decodeSecret(secretHex);
  if (secret === undefined) return refuse("invalid_secret", {});
  const expected = tokenDigest(secret, token.kid, {
    executionId: claimed.executionId,
    waitpointId: claimed.waitpointId,
    createdAtMs: found?.createdAtMs ?? nowMs,
    waitpointKey: found?.waitpointKey ?? "",
  });
  const equal = timingSafeEqual(
    Buffer.from(expected, "hex"),
    Buffer.from(token.digest, "hex"),
  );
  return equal && found !== undefined ? undefined : refuse("invalid_token", {});
}
