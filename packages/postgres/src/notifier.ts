/** How the other processes hear of what a commit brings them. */
/** Stands for news of any kind in the table of waiters; no lane has this name. */
export const NEWS = "";
/** A notification of this many bytes would be refused; beyond it, everyone is told to look at everything. */
const NOTICE_BYTES_MAX = 7_000;
const NOBODY = "00000000-0000-0000-0000-000000000000";

/**
 * Tells other processes with the commit, by a statement of the transaction itself: no trip of its own, and nobody who
 * dies between the two can leave a waiter untold. Only where somebody waits, for commits that notify queue up for one
 * lock of the server.
 */
export class Notifier {
  readonly channel: string;
  /** Who speaks, and does not listen to itself; in a caller's transaction, nobody: we learn of its commit like others. */
  readonly process: string | undefined;
  readonly push: boolean;

  constructor(channel: string, process: string | undefined, push: boolean) {
    this.channel = channel;
    this.process = process;
    this.push = push;
  }

  /** For {@link notified}. Nobody waits on no lane. */
  values(toTell: ReadonlyMap<string, number>): NotifyValues {
    return [
      this.channel,
      this.push ? JSON.stringify(Object.fromEntries(toTell)) : "{}",
      this.process ?? NOBODY,
    ];
  }
}

export type NotifyValues = [channel: string, lanes: string, process: string];

/**
 * Names only what somebody waits for: of many that end at once, each process hears of its own few. Whoever is the only
 * process to wait for work is told so: it need not look whether others were faster. Also a part of statements that write;
 * a part that is only read must be read by the statement's end to happen.
 */
export const notified = (condition = "TRUE") => `
    SELECT pg_notify(channel, CASE WHEN octet_length(notice) <= ${NOTICE_BYTES_MAX} THEN notice ELSE '*' END)
    FROM (
      SELECT min(channel) AS channel,
        json_build_object('from', min(teller::TEXT), 'lanes', json_object_agg(told.lane, told.in_ms::NUMERIC),
          'alone', bool_and(processes = 1 OR told.lane = '${NEWS}'))::TEXT AS notice
      FROM (SELECT ?::TEXT AS channel, ?::JSON AS lanes, ?::UUID AS teller) AS told_by,
        json_each_text(lanes) AS told (lane, in_ms), LATERAL (
          SELECT count(*) AS processes
          FROM (
            SELECT 1
            FROM waiters
            WHERE waiters.lane = told.lane AND process <> teller AND until > (SELECT now_ms())
            LIMIT 2
          ) AS waiting
        ) AS awaited
      WHERE processes > 0
      HAVING count(*) > 0
    ) AS news
    WHERE ${condition}`;
