/** Where the SDK says what it noticed. Nothing is printed unless a logger is injected. */

/** Structured values of one message; never payloads, tokens or secrets. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Fits `pino`, `winston` and `console` behind a one-line adapter. A method that throws is not guarded against. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

const nothing = (): void => {};

/** The default. */
export const silentLogger: Logger = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
};

/** One line about an error, without its stack: what log fields carry. */
export function describeError(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
