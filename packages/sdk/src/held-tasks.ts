/** The tasks a connection holds, by execution: whom a notice concerns, and what dispose has to let go. */
import type { Ownership } from "./ownership.js";

export class HeldTasks {
  readonly #byExecution = new Map<string, Set<Ownership>>();

  add(ownership: Ownership): void {
    const { executionId } = ownership.claimed;
    const held = this.#byExecution.get(executionId);
    if (held === undefined)
      this.#byExecution.set(executionId, new Set([ownership]));
    else held.add(ownership);
  }

  remove(ownership: Ownership): void {
    const { executionId } = ownership.claimed;
    const held = this.#byExecution.get(executionId);
    if (held?.delete(ownership) === true && held.size === 0)
      this.#byExecution.delete(executionId);
  }

  /** Mostly one; two where an execution came back to this process while an old holder has not let go. */
  of(executionId: string): readonly Ownership[] {
    return [...(this.#byExecution.get(executionId) ?? [])];
  }

  all(): readonly Ownership[] {
    return [...this.#byExecution.values()].flatMap((held) => [...held]);
  }
}
