/** How many reads of streams this process has under way: looks of tails wait for their turn, plain reads are refused. */
import { engineError, STREAM_OPS_MAX } from "@flowfabric/core";

/** However many tails are woken, so many plain reads find a place. */
const KEPT_FOR_READS = 16;
const RETRY_AFTER_MS = 50;

export class StreamReads {
  #underWay = 0;
  readonly #inLine: (() => void)[] = [];

  /** @throws EngineError `resource_exhausted` where too many are under way */
  async read<Answer>(body: () => Promise<Answer>): Promise<Answer> {
    if (this.#underWay >= STREAM_OPS_MAX)
      throw engineError("resource_exhausted", {
        pool: "stream_ops",
        max: STREAM_OPS_MAX,
        retryAfterMs: RETRY_AFTER_MS,
      });
    this.#underWay++;
    return await this.#run(body);
  }

  /** Of a tail. */
  async look<Answer>(body: () => Promise<Answer>): Promise<Answer> {
    if (this.#hasRoomForLooks) this.#underWay++;
    else await new Promise<void>((resolve) => this.#inLine.push(resolve));
    return await this.#run(body);
  }

  get #hasRoomForLooks(): boolean {
    return this.#underWay < STREAM_OPS_MAX - KEPT_FOR_READS;
  }

  async #run<Answer>(body: () => Promise<Answer>): Promise<Answer> {
    try {
      return await body();
    } finally {
      this.#underWay--;
      if (this.#hasRoomForLooks && this.#inLine.length > 0) {
        this.#underWay++;
        this.#inLine.shift()!();
      }
    }
  }
}
