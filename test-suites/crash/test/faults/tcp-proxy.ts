/**
 * Stands between a client and its server and makes the network misbehave: stalls silently, resets, or cuts a connection
 * at a byte of the test's choice. Knows nothing of what is said through it.
 */
import { connect, createServer, type Server, type Socket } from "node:net";

/** Looks at what passes on one connection. Whatever answers `cut` ends it, on both sides, before those bytes pass. */
export interface Tap {
  fromClient(bytes: Buffer): "pass" | "cut";
  fromServer(bytes: Buffer): "pass" | "cut";
}

interface Target {
  readonly host: string;
  readonly port: number;
}

export interface TcpProxyOptions extends Target {
  /** One for each connection. */
  readonly tap?: () => Tap;
}

export class TcpProxy {
  readonly #options: TcpProxyOptions;
  readonly #server: Server;
  readonly #links = new Set<Link>();
  #target: Target;
  #stalled = false;
  #accepted = 0;

  private constructor(options: TcpProxyOptions) {
    this.#options = options;
    this.#target = options;
    // Half-open is what a dead network leaves behind: nobody's end is told to the other side unless we do it.
    this.#server = createServer({ allowHalfOpen: true }, (client) => {
      this.#accept(client);
    });
  }

  /** On a free port of this machine. */
  static async start(options: TcpProxyOptions): Promise<TcpProxy> {
    const proxy = new TcpProxy(options);
    await new Promise<void>((resolve) =>
      proxy.#server.listen(0, "127.0.0.1", resolve),
    );
    return proxy;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === "string")
      throw new Error("the proxy does not listen");
    return address.port;
  }

  /** Connections it has taken so far. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Later connections lead there; those of this moment go on as they are. */
  lead(target: Target): void {
    this.#target = target;
  }

  /** From now on nothing passes, in either direction, on connections old and new. Nobody is told. */
  stall(): void {
    this.#stalled = true;
    for (const link of this.#links) link.stall();
  }

  /** What was held back passes now. */
  resume(): void {
    this.#stalled = false;
    for (const link of this.#links) link.resume();
  }

  /** The connections of this moment are dead for good, and nobody is told; later ones are served. */
  forget(): void {
    for (const link of this.#links) link.forget();
  }

  /** Every connection ends with a reset. */
  reset(): void {
    for (const link of this.#links) link.reset();
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.reset();
    await closed;
  }

  #accept(client: Socket): void {
    this.#accepted++;
    const { tap } = this.#options;
    const { host, port } = this.#target;
    const server = connect({ host, port, allowHalfOpen: true });
    const link = new Link(client, server, tap?.());
    this.#links.add(link);
    client.once("close", () => this.#links.delete(link));
    if (this.#stalled) link.stall();
  }
}

/** One client's connection and the one to the server behind it. */
class Link {
  readonly #client: Socket;
  readonly #server: Socket;
  #stalled = false;
  #forgotten = false;

  constructor(client: Socket, server: Socket, tap: Tap | undefined) {
    this.#client = client;
    this.#server = server;
    client.setNoDelay(true);
    server.setNoDelay(true);
    this.#forward(client, server, (bytes) => tap?.fromClient(bytes));
    this.#forward(server, client, (bytes) => tap?.fromServer(bytes));
  }

  stall(): void {
    this.#stalled = true;
    this.#client.pause();
    this.#server.pause();
  }

  resume(): void {
    if (this.#forgotten) return;
    this.#stalled = false;
    this.#client.resume();
    this.#server.resume();
    // What broke meanwhile is told now.
    if (this.#client.destroyed || this.#server.destroyed) this.reset();
  }

  forget(): void {
    this.#forgotten = true;
    this.stall();
  }

  reset(): void {
    this.#client.resetAndDestroy();
    this.#server.resetAndDestroy();
  }

  #forward(
    from: Socket,
    to: Socket,
    look: (bytes: Buffer) => "pass" | "cut" | undefined,
  ): void {
    from.on("data", (bytes: Buffer) => {
      if (look(bytes) === "cut") this.reset();
      else to.write(bytes);
    });
    from.on("end", () => to.end());
    from.on("error", () => {
      // It closes next.
    });
    from.on("close", () => {
      if (!this.#stalled) to.destroy();
    });
  }
}
