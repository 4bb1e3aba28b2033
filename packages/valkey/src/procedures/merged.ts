/** Lists and feeds that lie in several cells, read as one. Standalone there is one part, and its order is the order. */

/** What one cell has of it, in its order. */
export interface Part<Item> {
  /** Read, and not taken yet. */
  items: Item[];
  /** Nothing stands behind these, as far as is known. */
  isRead: boolean;
  /** Reads on a bounded piece: adds to `items`, or finds the end, or neither. */
  readonly readOn: () => Promise<void>;
}

/** How many to ask a part for where `count` are wanted in all: twice its share, most likely enough. */
export function shareOf(count: number, parts: number): number {
  return Math.min(count, Math.ceil((2 * count) / parts));
}

/** Takes up to `count` of the first over all parts. */
export async function takeFirst<Item>(
  parts: readonly Part<Item>[],
  count: number,
  isBefore: (a: Item, b: Item) => boolean,
): Promise<Item[]> {
  const taken: Item[] = [];
  while (taken.length < count) {
    const first = await findFirst(parts, isBefore);
    if (first === undefined) break;
    taken.push(first.items.shift()!);
  }
  return taken;
}

/** The part whose next item is the first of all; nothing at the end. */
export async function findFirst<Item, P extends Part<Item>>(
  parts: readonly P[],
  isBefore: (a: Item, b: Item) => boolean,
): Promise<P | undefined> {
  for (;;) {
    const unknown = parts.filter(
      ({ items, isRead }) => items.length === 0 && !isRead,
    );
    if (unknown.length === 0) break;
    await Promise.all(unknown.map((part) => part.readOn()));
  }
  let first: P | undefined;
  for (const part of parts) {
    if (part.items.length === 0) continue;
    if (first === undefined || isBefore(part.items[0]!, first.items[0]!))
      first = part;
  }
  return first;
}
