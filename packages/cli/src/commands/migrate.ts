import type { Command } from "commander";

import { describeAddress, migrateStore, parseAddress } from "../open.js";
import { withBackendOptions, type BackendOptions } from "../options.js";
import { plural, print, remark } from "../output.js";

interface MigrateOptions extends BackendOptions {
  readonly dryRun?: true;
}

export function addMigrate(program: Command): void {
  withBackendOptions(
    program
      .command("migrate")
      .description(
        "bring a store to this version's schema, as opening it would; made where it does not exist",
      )
      .option(
        "--dry-run",
        "only print the SQL that would be run, as one script; nothing is changed or made",
      ),
  ).action(migrate);
}

async function migrate(options: MigrateOptions): Promise<void> {
  const address = parseAddress(options.backend);
  if (address.kind === "valkey") {
    remark(
      `nothing to migrate: ${describeAddress(address)} has no schema; its functions are loaded when it is opened`,
    );
    return;
  }
  const dryRun = options.dryRun ?? false;
  const { version, migrations, sql } = await migrateStore(address, { dryRun });
  const store = describeAddress(address);
  if (dryRun) {
    process.stdout.write(sql);
    remark(
      migrations.length === 0
        ? `up to date: ${store} has schema ${version}; nothing would be run`
        : `${plural(migrations.length, "migration")} would be applied to ${store}; nothing was changed`,
    );
    return;
  }
  for (const { version, name } of migrations)
    print(`applied ${String(version).padStart(4, "0")}_${name}`);
  print(
    migrations.length === 0
      ? `up to date: ${store} has schema ${version}`
      : `${store} now has schema ${version}`,
  );
}
