/** How far the demo is: a bar where a person looks, plain lines elsewhere. */
import { formatCount, paint, plural, print } from "../output.js";

const BAR_CELLS = 32;
const REDRAW_MS = 80;
const LINE_MS = 1_000;
const STEPS = 10;

export interface Progress {
  update(done: number): void;
  /** A line that stays. */
  note(line: string): void;
  end(): void;
}

export function startProgress(total: number): Progress {
  return process.stdout.isTTY ? new Bar(total) : new Lines(total);
}

class Bar implements Progress {
  readonly #total: number;
  readonly #startMs = Date.now();
  readonly #timer: NodeJS.Timeout;
  #done = 0;

  constructor(total: number) {
    this.#total = total;
    this.#timer = setInterval(() => this.#draw(), REDRAW_MS);
    this.#draw();
  }

  update(done: number): void {
    this.#done = done;
  }

  note(line: string): void {
    process.stdout.write(`${CLEAR_LINE}${line}\n`);
    this.#draw();
  }

  end(): void {
    clearInterval(this.#timer);
    process.stdout.write(CLEAR_LINE);
  }

  #draw(): void {
    const share = this.#total === 0 ? 1 : this.#done / this.#total;
    const full = Math.floor(share * BAR_CELLS);
    const bar =
      paint("cyan", "█".repeat(full)) +
      paint("dim", "░".repeat(BAR_CELLS - full));
    const seconds = (Date.now() - this.#startMs) / 1_000;
    process.stdout.write(
      `${CLEAR_LINE}${bar} ${formatCount(this.#done)} of ${formatCount(this.#total)}  ${paint("dim", `${seconds.toFixed(1)} s`)}`,
    );
  }
}

const CLEAR_LINE = "\r\u001b[2K";

class Lines implements Progress {
  readonly #total: number;
  #lastMs = Date.now();
  #lastStep = 0;

  constructor(total: number) {
    this.#total = total;
  }

  update(done: number): void {
    const step = Math.floor((done / Math.max(1, this.#total)) * STEPS);
    const nowMs = Date.now();
    if (step === this.#lastStep && nowMs - this.#lastMs < LINE_MS) return;
    this.#lastStep = step;
    this.#lastMs = nowMs;
    print(
      `  ${formatCount(done)} of ${plural(this.#total, "file")} (${Math.floor((done / Math.max(1, this.#total)) * 100)} %)`,
    );
  }

  note(line: string): void {
    print(line);
  }

  end(): void {}
}
