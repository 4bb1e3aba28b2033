/** Waiting for people and watching output, from the command line, on any store: one store, several processes. */
import { once } from "node:events";
import { writeFileSync } from "node:fs";

import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { said, type Sandbox } from "./command.js";

/** The build: the command runs outside the test's own resolution. */
const SDK = new URL("../../sdk/dist/index.js", import.meta.url).href;
const HANDLERS = `
import { TaskFailure, when } from "${SDK}";

const text = (bytes) => new TextDecoder().decode(bytes);
export default {
  deploy: {
    kind: "deploy",
    handler: async (_input, task) => {
      const signals = await task.resumeSignals();
      if (signals.length > 0)
        return signals.map(({ signalName, sourceIdentity, payload }) => [
          signalName, sourceIdentity, payload ? JSON.parse(text(payload)) : null,
        ]);
      await task.stream.write("two of three must agree");
      await task.suspend({
        reasonCode: "waiting_for_approval",
        resumeCondition: when.count({
          n: 2, countKind: "distinctSources", waitpoints: ["review"], name: "approved",
        }),
      });
    },
  },
  write: {
    kind: "write",
    handler: async (_input, task) => {
      await task.stream.write("attempt " + task.attemptIndex + "\\n");
      if (task.attemptIndex === 0)
        throw new TaskFailure({ reason: "again", category: "transient" });
      await task.stream.write(new Uint8Array([0, 255, 10]));
      await task.stream.write("bye");
    },
  },
};
`;

/** A test runs a dozen processes, on a machine that may be busy. */
const TIMEOUT_MS = 120_000;

/** @param open a folder, and a store that nobody else has */
export function signalsTests(open: () => Sandbox): void {
  vi.setConfig({ testTimeout: TIMEOUT_MS });
  let box: Sandbox;
  beforeEach(() => {
    box = open();
  });
  afterEach(() => {
    box[Symbol.dispose]();
  });

  async function submit(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await box.run(["submit", ...args]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    return stdout.trim();
  }

  /** A worker that runs until `use` is through. */
  async function withWorker(use: () => Promise<void>): Promise<void> {
    writeFileSync(box.path("handlers.mjs"), HANDLERS);
    const { child, ended } = box.start([
      "worker",
      "handlers.mjs",
      "--concurrency",
      "4",
    ]);
    await said(child, "Ctrl-C drains");
    try {
      await use();
    } finally {
      child.kill("SIGINT");
    }
    expect((await ended).code).toBe(0);
  }

  async function runUntil(
    args: readonly string[],
    matches: (stdout: string) => boolean,
  ): Promise<string> {
    for (const endsAt = Date.now() + 20_000; Date.now() < endsAt;) {
      const { stdout } = await box.run(args);
      if (matches(stdout)) return stdout;
    }
    throw new Error(`${args.join(" ")} never said what it should`);
  }

  test("an execution waits for two people, who answer from the command line", async () => {
    const id = await submit("deploy");
    await withWorker(async () => {
      const table = await runUntil(["suspended"], (out) => out.includes(id));
      expect(table).toMatch(/^ID +REASON +FOR +TIMEOUT\n/);
      expect(table).toContain("waiting for approval");
      const json = await box.run(["suspended", "--json"]);
      expect(JSON.parse(json.stdout)).toMatchObject({
        executionId: id,
        reason: "waiting_for_approval",
      });

      const listed = await box.run(["waitpoints", id]);
      expect(listed.stdout).toMatch(
        /^ID +KEY +STATE +SIGNALS +WAITS FOR +UNTIL\n\S+ +review +active +0 +approved\n$/,
      );
      const quiet = await box.run(["waitpoints", id, "--json"]);
      expect(quiet.stdout).not.toContain("ffsig1_");
      const withTokens = await box.run([
        "waitpoints",
        id,
        "--tokens",
        "--json",
      ]);
      const { signalToken } = JSON.parse(withTokens.stdout) as {
        signalToken: string;
      };

      const signal = (...args: string[]) =>
        box.run(["signal", signalToken, ...args]);
      const ada = ["--name", "approved", "--source", "ada"];
      expect(await signal("--name", "rejected", "--source", "eve")).toEqual({
        code: 0,
        stdout: "accepted: signal ignored matcher failed\n",
        stderr: "",
      });
      expect(
        await signal(...ada, "--payload", '{"why":"fine"}', "--key", "1"),
      ).toMatchObject({ stdout: "accepted: appended to waitpoint\n" });
      expect((await signal(...ada, "--key", "1")).stdout).toMatch(
        /^duplicate of [0-9a-f-]{36}\n$/,
      );
      const last = await signal(
        ...["--name", "approved", "--source", "bob", "--json"],
      );
      expect(JSON.parse(last.stdout)).toMatchObject({
        kind: "triggeredResume",
      });

      expect(await box.run(["result", id, "--wait", "10s"])).toEqual({
        code: 0,
        stdout: '[["approved","ada",{"why":"fine"}],["approved","bob",null]]',
        stderr: "",
      });
      expect(await signal(...ada)).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/^flowfabric: target_not_signalable: /),
      });
      expect((await box.run(["waitpoints", id])).stderr).toBe(
        "no waitpoint takes signals\n",
      );
      expect((await box.run(["suspended"])).stderr).toBe(
        "nothing is suspended\n",
      );
    });
  });

  test("tail follows an execution from before its start to its end, byte for byte", async () => {
    const id = await submit(
      "write",
      "--max-retries",
      "1",
      "--retry-delay",
      "10ms",
    );
    const live = box.start(["tail", id]);
    await withWorker(async () => {
      const { code, stdout, stderr } = await live.ended;
      expect(code).toBe(0);
      expect(stdout).toBe("attempt 0\nattempt 1\n\0\ufffd\nbye");
      expect(stderr).toBe(
        "\nattempt 0 ended: attempt failure\n\nattempt 1 ended: attempt success\n",
      );
    });

    const json = await box.run(["tail", id, "--json"]);
    const events = json.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { kind: string; cursor: string });
    expect(events).toMatchObject([
      { kind: "frame", attemptIndex: 0, text: "attempt 0\n", mode: "durable" },
      { kind: "end", attemptIndex: 0 },
      { kind: "frame", attemptIndex: 1, text: "attempt 1\n" },
      { kind: "frame", base64: "AP8K" },
      { kind: "frame", text: "bye" },
      { kind: "end", reason: "attempt_success" },
    ]);
    const rest = await box.run([
      "tail",
      id,
      "--lines",
      "--from",
      events[3]!.cursor,
    ]);
    expect(rest.stdout).toBe("bye\n");
  });

  test("an interrupted tail says where to go on", async () => {
    const id = await submit("deploy");
    await withWorker(async () => {
      const { child, ended } = box.start(["tail", id, "--json"]);
      const [line] = (await once(child.stdout!, "data")) as [string];
      const { cursor } = JSON.parse(line) as { cursor: string };
      child.kill("SIGINT");
      expect(await ended).toEqual({
        code: 130,
        stdout: line,
        stderr: `\ngo on with --from ${cursor}\n`,
      });
      expect(await box.run(["cancel", id])).toMatchObject({ code: 0 });
      expect(await box.run(["tail", id, "--from", cursor])).toEqual({
        code: 0,
        stdout: "",
        stderr: "\nattempt 0 ended: attempt cancelled\n",
      });
    });
    expect(await box.run(["tail", id, "--from", "nowhere"])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/no cursor of a stream/),
    });
  });
}
