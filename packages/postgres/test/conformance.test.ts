import { conformance } from "@flowfabric/conformance";
import { afterAll, inject } from "vitest";

import { postgresHarness } from "./harness.js";

const harness = postgresHarness(inject("postgresUrl"));
afterAll(() => harness.finish());

conformance(harness);
