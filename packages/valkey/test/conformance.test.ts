import { conformance } from "@flowfabric/conformance";
import { afterAll, inject } from "vitest";

import { valkeyHarness } from "./harness.js";

const harness = valkeyHarness(inject("valkeyUrl"));
afterAll(() => harness.finish());

conformance(harness);
