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
  lockKeystore,
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
        await db.write(async (tx) => {
          const keystore = await lockKeystore(tx);
          const plan = planSeed(keystore, kid, secretHex);
          if (isRefusal(plan)) return plan;
          if (plan.kind === "alreadySeeded") return { ...plan, kid };

          writeCurrentSecret(tx, kid, secretHex);

          return { kind: "seeded" as const, kid };
        }),
      );
    },

    async rotateWaitpointHmacSecretAll(args) {
      const result = await db
        .write(async (tx) => await rotate(tx, args))
        .catch((error: unknown) =>
          rejected(translateError(error, "rotateWaitpointHmacSecretAll")),
        );
      return { entries: [{ partition: 0, result }] };
    },

    listWaitpointHmacKids: () =>
      db.read(async (tx) => listKids(await readKeystore(tx), tx.now())),
  };
}

async function rotate(
  tx: Session,
  { newKid, newSecretHex, graceMs }: Args<"rotateWaitpointHmacSecretAll">,
): Promise<RotationEntry["result"]> {
  const plan = planRotation(
    await lockKeystore(tx),
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
