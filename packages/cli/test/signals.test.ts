import { expect, test } from "vitest";

import { Sandbox } from "./command.js";
import { signalsTests } from "./signals-suite.js";

signalsTests(() => new Sandbox());

test("what is no token, and what is no payload", async () => {
  using box = new Sandbox();
  await box.run(["submit", "deploy"]);
  expect(await box.run(["signal", "nonsense"])).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^flowfabric: invalid_token: /),
  });
  expect(
    await box.run(["signal", "nonsense", "--payload", "{x"]),
  ).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/--payload '\{x' is not JSON.*--raw/),
  });
});
