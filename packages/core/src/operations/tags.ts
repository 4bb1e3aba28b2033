import { z } from "zod";

import { LaneId, Namespace, type ExecutionId } from "../ids.js";
import { TAG_CONDITIONS_MAX } from "../limits.js";
import { PUBLIC_STATES, type PublicState } from "../state.js";
import {
  ExecutionRef,
  PageCursor,
  PageLimit,
  TagKey,
  TagValue,
  TimestampMs,
} from "./inputs.js";

export const SetExecutionTagInput = ExecutionRef.extend({
  key: TagKey,
  value: TagValue,
});
export type SetExecutionTagInput = z.input<typeof SetExecutionTagInput>;

export const GetExecutionTagInput = ExecutionRef.extend({ key: TagKey });
export type GetExecutionTagInput = z.input<typeof GetExecutionTagInput>;

export const TagCondition = z.object({ key: TagKey, value: TagValue });

export const TagQuery = z.object({
  namespace: Namespace.optional(),
  /** Every `all` condition and, where `any` is given, at least one of those. At least one condition, at most 16. */
  match: z
    .object({
      all: z.array(TagCondition).default([]),
      any: z.array(TagCondition).default([]),
    })
    .refine(
      ({ all, any }) => all.length + any.length > 0,
      "give at least one condition in all or any",
    )
    .refine(
      ({ all, any }) => all.length + any.length <= TAG_CONDITIONS_MAX,
      `at most ${TAG_CONDITIONS_MAX} conditions`,
    ),
  publicStates: z.array(z.enum(PUBLIC_STATES)).optional(),
  lanes: z.array(LaneId).optional(),
  /** Both exclusive. */
  createdAfterMs: TimestampMs.optional(),
  createdBeforeMs: TimestampMs.optional(),
});
export type TagQuery = z.input<typeof TagQuery>;

export const SearchByTagsInput = TagQuery.extend({
  cursor: PageCursor,
  limit: PageLimit,
});
export type SearchByTagsInput = z.input<typeof SearchByTagsInput>;

export interface TagSearchEntry {
  readonly executionId: ExecutionId;
  readonly publicState: PublicState;
  readonly createdAtMs: number;
  readonly tags: Readonly<Record<string, string>>;
}

/** Caller tags: up to 32 per execution, each searchable by exact value. */
export interface TagOperations {
  /**
   * Sets one tag in any phase; the last write wins; search sees it at once.
   *
   * Checks: `invalid_tag_key`, `invalid_input` (length), `execution_not_found`, `invalid_input` (a 33rd tag).
   * Repeat: no effect.
   */
  setExecutionTag(input: SetExecutionTagInput): Promise<void>;

  /** Missing execution or tag: nothing. @throws `invalid_tag_key` */
  getExecutionTag(input: GetExecutionTagInput): Promise<string | undefined>;

  /** Newest first, then by id; pages stay stable while others insert. */
  searchByTags(input: SearchByTagsInput): Promise<{
    readonly entries: TagSearchEntry[];
    readonly nextCursor?: string;
  }>;

  /** How many {@link searchByTags} would list, exactly. */
  countByTags(input: TagQuery): Promise<number>;
}
