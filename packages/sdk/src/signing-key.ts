/**
 * The first key that tokens of waitpoints are signed with. A store without one is given one by whoever comes first; what
 * is stored always wins, so that all processes sign alike.
 */
import { randomBytes } from "node:crypto";

import {
  isEngineError,
  parseInput,
  SeedSecretInput,
  type EngineBackend,
} from "@flowfabric/core";

import { ConfigError } from "./errors.js";
import { describeError, type Logger } from "./logger.js";
import { repeatLostReplies } from "./waiting.js";

export interface WaitpointHmac {
  /** Names the key in its tokens; 1 to 64 printable ASCII characters without colon and pipe; default `k1`. */
  readonly kid?: string | undefined;
  /** 32 bytes as 64 hex digits. */
  readonly secretHex: string;
}

/** The key to be installed, and whether somebody chose it. */
export interface SigningKey {
  readonly kid: string;
  readonly secretHex: string;
  readonly isGiven: boolean;
}

const FIRST_KID = "k1";
const SECRET_BYTES = 32;

/** @throws ConfigError of the given context, field `waitpoint_hmac` */
export function signingKeyOf(
  given: WaitpointHmac | undefined,
  context: string,
): SigningKey {
  if (given === undefined) {
    const secretHex = randomBytes(SECRET_BYTES).toString("hex");
    return { kid: FIRST_KID, secretHex, isGiven: false };
  }
  const { kid = FIRST_KID, secretHex } = given;
  try {
    return {
      ...parseInput(SeedSecretInput, { kid, secretHex }),
      isGiven: true,
    };
  } catch (error) {
    // Neither the error's text nor its cause may show the secret; its code says which of the two is wrong.
    const isKid = isEngineError(error, "invalid_kid");
    throw new ConfigError(
      context,
      isKid
        ? "a kid is 1 to 64 printable ASCII characters without colon and pipe"
        : "a secret is 64 hex digits",
      "waitpoint_hmac",
    );
  }
}

/**
 * Never rejects: without a key everything works but suspending, whose refusal `hmac_secret_not_initialized` says what is
 * missing.
 */
export async function installSigningKey(
  backend: EngineBackend,
  { kid, secretHex, isGiven }: SigningKey,
  logger: Logger,
): Promise<void> {
  if (!backend.capabilities().supports.seedWaitpointHmacSecret) return;
  try {
    const answer = await repeatLostReplies(() =>
      backend.seedWaitpointHmacSecret({ kid, secretHex }),
    );
    if (answer.kind === "seeded")
      logger.info("key for waitpoint tokens installed", { kid });
    else if (isGiven && !answer.sameSecret) tellOther(logger, kid);
  } catch (error) {
    // Another kid signs by now.
    if (!isEngineError(error, "invalid_input"))
      logger.warn("key for waitpoint tokens could not be installed", {
        kid,
        error: describeError(error),
      });
    else if (isGiven) tellOther(logger, kid);
  }
}

function tellOther(logger: Logger, kid: string): void {
  logger.warn(
    "the store signs waitpoint tokens with another key than the one configured; the stored one is used",
    { kid },
  );
}
