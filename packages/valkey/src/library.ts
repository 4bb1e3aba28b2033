/** The functions that live in the server, as FUNCTION LOAD takes them. */
import { BODY, TEST_CLOCK, VERSION } from "./generated/library.js";

export interface Library {
  /** Hash of the text. Also begins every function's name, so that processes of two versions share a server. */
  readonly version: string;
  readonly text: string;
}

export const library: Library = withVersion(VERSION, BODY);

/** The same with a clock that goes by an offset, for tests. */
export const testLibrary: Library = withVersion(
  `${VERSION}_test`,
  `${BODY}\n${TEST_CLOCK}`,
);

function withVersion(version: string, body: string): Library {
  return {
    version,
    text: `#!lua name=${version}\nlocal VERSION = "${version}"\n${body}\n`,
  };
}
