/**
 * One connection that hears messages. It is asked for a sign of life, and made anew where it breaks or goes silent, so that
 * whoever waits may rely on it for long.
 */
import type { Redis } from "ioredis";

/** Between tries to connect, at first and at most. */
const RECONNECT_MS = 50;
const RECONNECT_MS_MAX = 1_000;

export interface ListenerOptions {
  /** Makes a connection that connects when it is told to, and once. */
  readonly connect: () => Redis;
  readonly answerTimeoutMs: number;
  /** Channels have a character for each byte of their names. */
  readonly onMessage: (channel: string, message: string) => void;
  /** What was published before is lost; resolves when whoever needs it has caught up. */
  readonly onConnected: () => Promise<void>;
  /** These are heard from now on. */
  readonly onHeard: (channels: readonly string[]) => void;
  readonly onLost: () => void;
}

export class Listener {
  readonly #options: ListenerOptions;
  /** Wanted, and among them those that the server knows of. */
  readonly #channels = new Set<string>();
  readonly #heard = new Set<string>();
  #client: Redis | undefined;
  /** Connected, and whoever needs it has caught up. */
  #isReady = false;
  #pings: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #retryMs = RECONNECT_MS;
  #closed = false;

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  hears(channels: readonly string[]): boolean {
    return channels.every((channel) => this.#heard.has(channel));
  }

  /** From soon on; `onHeard` tells when. */
  hear(channels: readonly string[]): void {
    const more = channels.filter((channel) => !this.#channels.has(channel));
    if (more.length === 0 || this.#closed) return;
    for (const channel of more) this.#channels.add(channel);
    if (this.#isReady) void this.#subscribe(this.#client!, more);
    else if (this.#client === undefined && this.#retry === undefined)
      void this.#connect();
  }

  unhear(channel: string): void {
    this.#channels.delete(channel);
    if (this.#heard.delete(channel))
      this.#client
        ?.unsubscribe(nameOf(channel))
        .catch(() => this.#lose(this.#client));
  }

  close(): void {
    this.#closed = true;
    this.#disconnect();
    clearTimeout(this.#retry);
  }

  async #connect(): Promise<void> {
    this.#retry = undefined;
    let client: Redis | undefined;
    try {
      client = this.#options.connect();
      this.#client = client;
      client.on("messageBuffer", (channel: Buffer, message: Buffer) =>
        this.#options.onMessage(channel.toString("latin1"), message.toString()),
      );
      await within(this.#options.answerTimeoutMs, client.connect());
      client.once("close", () => this.#lose(client));
    } catch {
      this.#lose(client);
      return;
    }
    if (client !== this.#client) return;
    const { answerTimeoutMs } = this.#options;
    this.#pings = setInterval(
      () => void this.#ping(client, answerTimeoutMs / 6),
      answerTimeoutMs / 3,
    );
    this.#pings.unref();
    await this.#subscribe(client, [...this.#channels]);
  }

  async #subscribe(client: Redis, channels: readonly string[]): Promise<void> {
    try {
      if (channels.length > 0)
        await within(
          this.#options.answerTimeoutMs,
          client.subscribe(...channels.map(nameOf)),
        );
      if (!this.#isReady) await this.#options.onConnected();
    } catch {
      this.#lose(client);
    }
    if (client !== this.#client) return;
    for (const channel of channels) this.#heard.add(channel);
    for (const channel of channels)
      if (!this.#channels.has(channel)) this.unhear(channel);
    this.#retryMs = RECONNECT_MS;
    // Those that were asked for in between.
    const more = [...this.#channels].filter(
      (channel) => !this.#heard.has(channel),
    );
    const isFirst = !this.#isReady;
    this.#isReady = true;
    if (isFirst && more.length > 0) void this.#subscribe(client, more);
    this.#options.onHeard(channels);
  }

  /** Silence is worse than an end: nobody would tell. */
  async #ping(client: Redis, timeoutMs: number): Promise<void> {
    try {
      await within(timeoutMs, client.ping());
    } catch {
      this.#lose(client);
    }
  }

  #lose(client: Redis | undefined): void {
    if (client !== this.#client || this.#closed) return;
    const wasReady = this.#isReady;
    this.#disconnect();
    this.#retry = setTimeout(() => void this.#connect(), this.#retryMs);
    this.#retry.unref();
    this.#retryMs = Math.min(this.#retryMs * 2, RECONNECT_MS_MAX);
    if (wasReady) this.#options.onLost();
  }

  #disconnect(): void {
    clearInterval(this.#pings);
    this.#client?.disconnect();
    this.#client = undefined;
    this.#isReady = false;
    this.#heard.clear();
  }
}

function nameOf(channel: string): Buffer {
  return Buffer.from(channel, "latin1");
}

/** Fails where that takes longer. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(reject, ms, new Error("no answer"));
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
