import {
  isRefusal,
  listKids,
  planRotation,
  planSeed,
  type Args,
  type EngineError,
  type Implementation,
  type RotationEntry,
  type SecretOperations,
} from "@flowfabric/core";

import { settle, translateError } from "../errors.js";
import {
  deleteSecret,
  readKeystore,
  retireSecret,
  writeCurrentSecret,
} from "../procedures/keystore.js";
import type { Session, Store } from "../store.js";

export function secretOperations({
  db,
}: Store): Implementation<SecretOperations> {
  return {
    async seedWaitpointHmacSecret({ kid, secretHex }) {
      return settle(
        await db.write((tx) => {
          const plan = planSeed(readKeystore(tx), kid, secretHex);
          if (isRefusal(plan)) return plan;
          if (plan.kind === "alreadySeeded") return { ...plan, kid };

          writeCurrentSecret(tx, kid, secretHex);

          return { kind: "seeded" as const, kid };
        }),
      );
    },

    async rotateWaitpointHmacSecretAll(args) {
      const result = await db
        .write((tx) => rotate(tx, args))
        .catch((error: unknown) =>
          rejected(translateError(error, "rotateWaitpointHmacSecretAll")),
        );
      return { entries: [{ partition: 0, result }] };
    },

    listWaitpointHmacKids: () =>
      db.read((tx) => listKids(readKeystore(tx), tx.now())),
  };
}

function rotate(
  tx: Session,
  { newKid, newSecretHex, graceMs }: Args<"rotateWaitpointHmacSecretAll">,
): RotationEntry["result"] {
  const plan = planRotation(
    readKeystore(tx),
    newKid,
    newSecretHex,
    graceMs,
    tx.now(),
  );
  if (isRefusal(plan)) return rejected(plan.refused);
  if (plan.kind === "noop") {
    if (plan.repair) writeCurrentSecret(tx, newKid, newSecretHex);
    return { kind: "noop", kid: newKid };
  }

  const { removedKids, previousKid, previousExpiresAtMs } = plan;
  for (const kid of removedKids) deleteSecret(tx, kid);
  if (previousKid !== undefined)
    retireSecret(tx, previousKid, previousExpiresAtMs!);
  writeCurrentSecret(tx, newKid, newSecretHex);

  return {
    kind: "rotated",
    ...(previousKid === undefined ? {} : { previousKid }),
    newKid,
    gcCount: removedKids.length,
  };
}

function rejected({ code, detail }: EngineError): RotationEntry["result"] {
  return { kind: "rejected", code, detail };
}
