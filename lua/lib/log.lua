-- Appending to the log. History is kept with its execution; what feeds and lease holders hear of is in one stream as well.

--- The first events of an execution lie in its record, for most have no more; later ones in a hash of their own.
log.SHORT_HISTORY = 16
log.SHORT_EVENT = 128
--- So many are kept at least.
log.LONG_HISTORY = 10000

-- Completions, leases, signals, tags, and what a holder must be told.
log.FED = {
  [2] = true,
  [3] = true,
  [4] = true,
  [5] = true,
  [6] = true,
  [8] = true,
  [17] = true,
  [20] = true,
  [21] = true,
  [22] = true,
  [23] = true,
  [24] = true,
  [28] = true,
  [30] = true,
}

--- What a holder must be told, where its lease ended with it.
log.TOLD = { [5] = true, [6] = true, [17] = true, [22] = true, [23] = true }

--- An event as it is stored, packed: at, type, actor, state, attempt, epoch, holder, lease, attempt_id, reason, data as JSON;
--- nothing in the place of what is absent. `fields`: transition and attempt may be false; lease with holder for a lease that
--- begins or is taken away; attempt_id, reason, data (a table).
local function pack(row, kind, at, actor, fields)
  local with_attempt = row.attempts > 0
  if fields.attempt ~= nil then
    with_attempt = fields.attempt
  end
  return cmsgpack.pack(
    at,
    state.EVENT[kind],
    state.ACTOR[actor],
    fields.transition ~= false and state.pack(row) or nil,
    with_attempt and row.attempt or nil,
    row.epoch > 0 and row.epoch or nil,
    fields.holder,
    fields.lease,
    fields.attempt_id,
    fields.reason,
    fields.data and text.encode(fields.data)
  )
end

--- Adds to the stream, with ref, route and tags in front, under an id that begins with the event's time, so that age is found
--- by position. Behind it stand the microseconds and the place within the call: events of several cells can be put into one
--- order. After a step back of the clock the id stays where it was.
local function feed(tx, row, at, event)
  local packed = cmsgpack.pack(row.ref, row.route, row.tags) .. event
  local key = tx.base .. ":e"
  tx.fed = (tx.fed or 0) + 1
  if tx.fed_at ~= at then
    tx.fed_at, tx.fed_ms = at, text.of_number(at)
  end
  local id = tx.fed_ms .. "-" .. tx.micros * 1000 + tx.fed
  local added = redis.pcall("XADD", key, id, "e", packed)
  if type(added) == "table" and added.err then
    redis.call("XADD", key, feeds.newest(tx):match("^%d+") .. "-*", "e", packed)
  end
  session.news(tx)
end

--- Numbers the event and counts it on the row; the caller saves the row, and the event with it.
function log.append(tx, row, kind, at, actor, fields)
  fields = fields or {}
  row.events = row.events + 1
  local packed = pack(row, kind, at, actor, fields)
  if row.events <= log.SHORT_HISTORY and #packed <= log.SHORT_EVENT then
    row.history = (row.history or "") .. cmsgpack.pack(row.events, packed)
  else
    redis.call("HSET", tx.base .. ":v:" .. row.ref, row.events, packed)
    record.set_part(row, record.PART.history, true)
    log.forget_old(tx, row)
  end
  -- What it was created with is told by that event.
  if log.FED[state.EVENT[kind]] or kind == "created" and row.tags then
    feed(tx, row, at, packed)
  else
    session.news(tx)
  end
  if fields.holder and log.TOLD[state.EVENT[kind]] then
    session.tell(tx, fields.holder)
  end
end

--- The values of an event by place; nothing where one is absent.
function log.unpack(packed)
  return { cmsgpack.unpack(packed) }
end

--- Shown in feeds only; takes no number of the execution.
function log.append_to_feed(tx, row, kind, at, actor, fields)
  feed(tx, row, at, pack(row, kind, at, actor, fields))
end

--- The newest are kept, and every end; the rest of a long history goes as it grows.
function log.forget_old(tx, row)
  local old = row.events - log.LONG_HISTORY
  if old <= log.SHORT_HISTORY then
    return
  end
  local key = tx.base .. ":v:" .. row.ref
  local packed = redis.call("HGET", key, old)
  if packed and not state.is_terminal(log.unpack(packed)[2]) then
    redis.call("HDEL", key, old)
  end
end
