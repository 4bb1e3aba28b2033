import { conformance } from "@flowfabric/conformance";

import { sqliteHarness } from "./harness.js";

conformance(sqliteHarness());
