/** The other process of {@link resumeAcrossProcesses}: a worker whose handler suspends. */
import { once } from "node:events";

import { backendNamed } from "../backends.js";
import { endOfProcess, tell } from "../other-process.js";
import { waitingWorker, withWorker } from "./handlers.js";

const [name, location] = process.argv.slice(2);
const end = endOfProcess();
await using backend = await backendNamed(name!).open(location!);
await withWorker(waitingWorker(backend, tell), () => once(end, "abort"));
