import type {
  Args,
  Implementation,
  RotationEntry,
  SecretOperations,
} from "@flowfabric/core";

import type { Cell } from "../cells.js";
import { listOf, optionalText, textOf } from "../connection.js";
import { translateError } from "../errors.js";
import { patiently } from "../procedures/outages.js";
import type { Store } from "../store.js";

/** Every cell has a copy, so that its tokens are made and checked where its executions are. */
export function secretOperations({
  cells,
}: Store): Implementation<SecretOperations> {
  return {
    async seedWaitpointHmacSecret({ kid, secretHex }) {
      // The first one decides: of two processes with different kids, one is refused before it has written anything.
      const first = await seed(cells.first, kid, secretHex);
      const seeds = [
        first,
        ...(await Promise.all(
          cells.all.slice(1).map((cell) => seed(cell, kid, secretHex)),
        )),
      ];
      return seeds.some((one) => one === "seeded")
        ? { kind: "seeded", kid }
        : {
            kind: "alreadySeeded",
            kid,
            sameSecret: seeds.every((one) => one === "same"),
          };
    },

    // What a late answer would have told, a repeat tells.
    async rotateWaitpointHmacSecretAll(args) {
      const entries = await Promise.all(
        cells.all.map(async (cell): Promise<RotationEntry> => {
          const result = await patiently(
            cell,
            () => rotate(cell, args),
            cells.all.length > 1,
          ).catch(rejected);
          return { partition: cell.index, result };
        }),
      );
      return { entries };
    },

    /** All cells have the same, but where a rotation failed in some. */
    async listWaitpointHmacKids() {
      const [current, verifying] = await cells.first.call("list_kids");
      const currentKid = optionalText(current);
      return {
        ...(currentKid === undefined ? {} : { currentKid }),
        verifying: listOf(verifying).map((each) => {
          const [kid, expiresAtMs] = listOf(each);
          return { kid: textOf(kid!), expiresAtMs: expiresAtMs as number };
        }),
      };
    },
  };
}

async function seed(
  cell: Cell,
  kid: string,
  secretHex: string,
): Promise<"seeded" | "same" | "other"> {
  const [kind, isSame] = await cell.call("seed_secret", kid, secretHex);
  if (textOf(kind!) === "seeded") return "seeded";
  return isSame === 1 ? "same" : "other";
}

async function rotate(
  cell: Cell,
  { newKid, newSecretHex, graceMs }: Args<"rotateWaitpointHmacSecretAll">,
): Promise<RotationEntry["result"]> {
  const [kind, previous, removed] = await cell.call(
    "rotate_secret",
    newKid,
    newSecretHex,
    graceMs,
  );
  if (textOf(kind!) === "noop") return { kind: "noop", kid: newKid };
  const previousKid = optionalText(previous);
  return {
    kind: "rotated",
    ...(previousKid === undefined ? {} : { previousKid }),
    newKid,
    gcCount: removed as number,
  };
}

function rejected(error: unknown): RotationEntry["result"] {
  const { code, detail } = translateError(
    error,
    "rotateWaitpointHmacSecretAll",
  );
  return { kind: "rejected", code, detail };
}
