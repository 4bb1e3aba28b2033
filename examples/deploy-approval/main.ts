/**
 * A deployment goes to one of ten replicas and then waits until two of three reviewers have said what they think. Nobody
 * holds a process, a connection or a lock meanwhile.
 */
import assert from "node:assert/strict";

import {
  defineExecution,
  isEngineError,
  TaskFailure,
  when,
  type ExecutionId,
} from "@flowfabric/sdk";
import { z } from "zod";

import { runExample } from "../harness/example.js";

const Review = z.object({ approve: z.boolean(), note: z.string() });
type Review = z.infer<typeof Review>;

const Deploy = defineExecution({
  kind: "deploy",
  input: z.object({ service: z.string(), answerWithinMs: z.number() }),
  output: z.object({ replicas: z.number(), approvedBy: z.array(z.string()) }),
});

await runExample("deploy-approval", async (example) => {
  const { client, log } = example;

  example.startWorker({ maxConcurrentTasks: 1 }, (worker) =>
    worker.handle(Deploy, async ({ service, answerWithinMs }, task) => {
      const answers = await task.resumeSignals();
      if (answers.length === 0) {
        log(service, "canary on 1 of 10 replicas, asking for two approvals");
        await task.stream.patch({ step: "canary", replicas: 1 });
        return task.suspend({
          reasonCode: "waiting_for_approval",
          resumeCondition: when.count({
            ...{ n: 2, countKind: "distinctSources", name: "review" },
            waitpoints: ["reviews"],
          }),
          timeoutAtMs: Date.now() + answerWithinMs,
          timeoutBehavior: "escalate",
        });
      }
      for (const answer of answers) {
        const { approve, note } = await answer.decode(Review);
        if (approve) continue;
        const reason = `${answer.sourceIdentity}: ${note}`;
        throw new TaskFailure({ reason, category: "permanent" });
      }
      await task.stream.patch({ step: "rolled out", replicas: 10 });
      // Who said it twice is in it twice.
      const people = answers.map(({ sourceIdentity }) => sourceIdentity);
      const approvedBy = [...new Set(people)];
      return { replicas: 10, approvedBy };
    }),
  );

  const deploy = async (service: string, answerWithinMs = 3_600_000) => {
    const input = { service, answerWithinMs };
    const { executionId } = await client.submit(Deploy, { input });
    await example.untilEvent(executionId, "suspended");
    return executionId;
  };

  /** All that a reviewer needs is the token; here it is looked up, a mail could have brought it. */
  const tokenOf = async (executionId: ExecutionId) => {
    const page = await client.admin.listPendingWaitpoints({ executionId });
    return (await client.signalToken(page.entries[0]!))!.reveal();
  };
  const review = async (token: string, who: string, answer: Review, n = 1) => {
    const sent = await client.signal(token, {
      name: "review",
      payload: answer,
      ...{ sourceType: "reviewer", sourceIdentity: who },
      idempotencyKey: `${who}-${n}`,
    });
    const told = sent.kind === "accepted" ? sent.effect : sent.kind;
    log(who, `${answer.approve ? "yes" : "no"}, ${answer.note} → ${told}`);
    return told;
  };
  const fine = { approve: true, note: "looks fine" };

  // Two different people; one who says it twice is still one.
  const web = await deploy("web");
  const token = await tokenOf(web);
  assert.equal(await review(token, "alice", fine), "appended_to_waitpoint");
  assert.equal(await review(token, "alice", fine), "duplicate");
  assert.equal(
    await review(token, "alice", fine, 2),
    "appended_to_waitpoint_duplicate",
  );
  assert.equal((await client.inspect(web))?.publicState, "suspended");
  assert.equal(await review(token, "bob", fine), "triggeredResume");
  const rolledOut = await client.result(Deploy, { executionId: web });
  assert(rolledOut.kind === "completed");
  assert.deepEqual(rolledOut.output.approvedBy, ["alice", "bob"]);
  log("web", "on 10 of 10 replicas");
  await assert.rejects(review(token, "carol", fine), (error) =>
    isEngineError(error, "target_not_signalable"),
  );
  log("carol", "came too late");

  // One of the two says no.
  const shop = await deploy("shop");
  await review(await tokenOf(shop), "alice", fine);
  const no = { approve: false, note: "error rate is up" };
  await review(await tokenOf(shop), "carol", no);
  const rejected = await client.result(Deploy, { executionId: shop });
  assert(rejected.kind === "failed");
  assert.equal(rejected.reason, "carol: error rate is up");
  log("shop", `not rolled out, ${rejected.reason}`);

  // Nobody answers in time: it waits on, but now operators see it. Answers still count.
  const mail = await deploy("mail", 1_000);
  await example.untilEvent(mail, "blocked");
  const escalated = await client.inspect(mail);
  assert.equal(escalated?.publicState, "suspended");
  assert.equal(escalated.blockingReason, "paused_by_operator");
  log("mail", `nobody answered: ${escalated.blockingReason}`);
  await review(await tokenOf(mail), "bob", fine);
  await review(await tokenOf(mail), "carol", fine);
  const late = await client.result(Deploy, { executionId: mail });
  assert(late.kind === "completed");
  assert.deepEqual(late.output.approvedBy, ["bob", "carol"]);
  log("mail", "on 10 of 10 replicas");
});
