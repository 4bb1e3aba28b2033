/** FlowFabric on Valkey or Redis: `valkeyBackend({ url })`. */
export { valkeyBackend } from "./backend.js";
export type { ValkeyOptions } from "./options.js";
