/** What the processes of this example share. */
import { defineExecution } from "@flowfabric/sdk";
import { z } from "zod";

export const Answer = defineExecution({
  kind: "answer",
  input: z.object({ question: z.string() }),
  output: z.object({ tokens: z.number(), byAttempt: z.number() }),
});

/** Stands in for a model: the same question always gets the same tokens, and a prefix is gone on from. */
export async function* generate(
  question: string,
  prefix: readonly string[],
  pause: () => Promise<unknown>,
): AsyncGenerator<string> {
  for (const token of tokensOf(question).slice(prefix.length)) {
    await pause();
    yield token;
  }
}

export function tokensOf(question: string): string[] {
  const answer = [
    `You asked: ${question}`,
    "A process that writes may end at any moment, between any two tokens.",
    "What it has written by then is stored, and nobody has to make it again.",
    "Another process reads that, and goes on behind the last token.",
    "Whoever watches sees the boundary, and otherwise one text.",
  ].join(" ");
  return answer.match(/\S+\s*/g) ?? [];
}
