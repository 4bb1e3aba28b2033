import { conformance } from "@flowfabric/conformance";
import { inject } from "vitest";

import { postgresHarness } from "./harness.js";

conformance(postgresHarness(inject("postgresUrl")));
