import { getEventListeners } from "node:events";

import { onAbort } from "@flowfabric/core";
import { expect, test } from "vitest";

test("all that wait under a signal share one listener, which goes with the last of them", () => {
  const { signal } = new AbortController();
  const listeners = () => getEventListeners(signal, "abort").length;
  const unlinks = Array.from({ length: 100 }, () => onAbort(signal, () => {}));
  expect(listeners()).toBe(1);
  for (const unlink of unlinks.slice(1)) unlink();
  expect(listeners()).toBe(1);
  unlinks[0]!();
  expect(listeners()).toBe(0);
  // Leaving twice is leaving once: others may wait by now.
  const heard: string[] = [];
  onAbort(signal, () => heard.push("later"));
  unlinks[0]!();
  expect(listeners()).toBe(1);
});

test("each is called once, those that left are not, and one may leave as it is called", () => {
  const abort = new AbortController();
  const heard: string[] = [];
  const same = () => heard.push("same");
  const unlinkFirst = onAbort(abort.signal, () => {
    heard.push("first");
    unlinkFirst();
  });
  onAbort(abort.signal, same);
  onAbort(abort.signal, same);
  onAbort(abort.signal, () => heard.push("gone"))();
  abort.abort();
  expect(heard).toEqual(["first", "same", "same"]);
  expect(getEventListeners(abort.signal, "abort")).toEqual([]);
  onAbort(undefined, same)();
});
