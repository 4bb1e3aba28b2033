-- The streams of an execution's attempts. What is known of each, and its summary, is in one hash beside the record; its frames
-- are in streams of the server, one per mode, for each mode is trimmed by itself. An execution that writes none has no such key.

--- Entries of a stream of the server that are read in one go.
local PAGE = 256
--- Values of a frame in the answer.
local FRAME_VALUES = 5
--- Of payload, in one answer.
local PAGE_BYTES_MAX = 16777216

local function key_of(tx, ref)
  return tx.base .. ":s:" .. ref
end

local function frames_key(tx, ref, attempt, mode)
  return tx.base .. ":f:" .. ref .. ":" .. attempt .. ":" .. mode
end

local function document_field(attempt)
  return attempt .. "d"
end

--- Of each mode, in the order of frames.MODE: how many frames there are, and the last id that was trimmed. `ttl_max` is the
--- longest time that any best-effort frame was given, `caller_…` what the last call with numbers of the caller's was answered.
--- As with records, columns are only ever added at the end, and what a newer version has added is written back.
local function to_meta(
  last_ms,
  last_n,
  frame_count,
  total_bytes,
  durable_kept,
  durable,
  summary,
  best_effort,
  durable_trimmed_ms,
  durable_trimmed_n,
  summary_trimmed_ms,
  summary_trimmed_n,
  best_effort_trimmed_ms,
  best_effort_trimmed_n,
  ttl_max,
  rate,
  rate_at,
  summary_version,
  first_applied_at,
  last_updated_at,
  caller_seq,
  caller_ms,
  caller_n,
  caller_count,
  caller_version,
  ...
)
  return {
    last_ms = last_ms,
    last_n = last_n,
    frame_count = frame_count,
    total_bytes = total_bytes,
    durable_kept = durable_kept,
    retained = { [0] = durable, summary, best_effort },
    trimmed_ms = { [0] = durable_trimmed_ms, summary_trimmed_ms, best_effort_trimmed_ms },
    trimmed_n = { [0] = durable_trimmed_n, summary_trimmed_n, best_effort_trimmed_n },
    ttl_max = ttl_max,
    rate = rate,
    rate_at = rate_at,
    summary_version = summary_version,
    first_applied_at = first_applied_at,
    last_updated_at = last_updated_at,
    caller_seq = caller_seq,
    caller_ms = caller_ms,
    caller_n = caller_n,
    caller_count = caller_count,
    caller_version = caller_version,
    rest = { ... },
  }
end

local function pack(meta)
  local retained, trimmed_ms, trimmed_n = meta.retained, meta.trimmed_ms, meta.trimmed_n
  return cmsgpack.pack(
    meta.last_ms,
    meta.last_n,
    meta.frame_count,
    meta.total_bytes,
    meta.durable_kept,
    retained[0],
    retained[1],
    retained[2],
    trimmed_ms[0],
    trimmed_n[0],
    trimmed_ms[1],
    trimmed_n[1],
    trimmed_ms[2],
    trimmed_n[2],
    meta.ttl_max,
    meta.rate,
    meta.rate_at,
    meta.summary_version,
    meta.first_applied_at,
    meta.last_updated_at,
    meta.caller_seq,
    meta.caller_ms,
    meta.caller_n,
    meta.caller_count,
    meta.caller_version,
    unpack(meta.rest)
  )
end

local function unpacked(packed)
  return to_meta(cmsgpack.unpack(packed))
end

local function read_meta(ref, packed)
  if not packed then
    return nil
  end
  local is_readable, meta = pcall(unpacked, packed)
  if not is_readable or type(meta.summary_version) ~= "number" then
    error({ err = "FFCORRUPT " .. text.of_ref(ref) .. " stream" })
  end
  return meta
end

--- What is known of the stream of one attempt; nothing where it has written none.
function streams.find(tx, ref, attempt)
  return read_meta(ref, redis.call("HGET", key_of(tx, ref), attempt))
end

--- The stream of the attempt that a row points at.
function streams.of_row(tx, row)
  local meta = streams.find(tx, row.ref, row.attempt)
  if meta then
    return meta
  end
  -- The policy speaks for the whole stream: it is asked once.
  local policy = text.decoded(side.get(tx, row, "policy")).streamPolicy
  local kept = policy and policy.retentionMaxlen or frames.DURABLE_KEPT
  return to_meta(0, 0, 0, 0, kept, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, nil, nil, 0)
end

--- The JSON that the patches so far have made; nothing where there was none.
function streams.document(tx, ref, attempt)
  return redis.call("HGET", key_of(tx, ref), document_field(attempt)) or nil
end

--- Removes the oldest of a class until `kept` are left, one or more, and remembers the last of those that went.
local function trim(tx, row, meta, mode, kept, excess)
  local key = frames_key(tx, row.ref, row.attempt, mode)
  if excess > 1 then
    redis.call("XTRIM", key, "MAXLEN", "=", text.of_number(kept + 1))
  end
  local last = redis.call("XRANGE", key, "-", "+", "COUNT", 1)[1]
  redis.call("XTRIM", key, "MAXLEN", "=", text.of_number(kept))
  local ms, n = last[1]:match("^(%d+)%-(%d+)$")
  meta.trimmed_ms[mode], meta.trimmed_n[mode] = tonumber(ms), tonumber(n)
end

--- As an entry: a header that only processes read, and the payload; before them the version of a patch, or how long a
--- best-effort frame lives.
local function add(tx, row, meta, frame)
  local key = frames_key(tx, row.ref, row.attempt, frame.mode)
  local id = text.of_number(meta.last_ms) .. "-" .. text.of_number(meta.last_n)
  if frame.mode == frames.MODE.durable then
    redis.call("XADD", key, id, "h", frame.header, "p", frame.payload)
  elseif frame.mode == frames.MODE.summary then
    redis.call("XADD", key, id, "v", text.of_number(meta.summary_version), "h", frame.header, "p", frame.payload)
  else
    redis.call("XADD", key, id, "t", text.of_number(frame.live.ttl), "h", frame.header, "p", frame.payload)
  end
end

--- Appends to the stream of the attempt that a row points at; all checks have been passed. `list`: frames of mode, header and
--- payload, and of live where they are best effort, see frames.size_best_effort. `patched`: the document that the patches among
--- them made. `seq`: the caller's number of the last one.
function streams.append(tx, row, meta, list, patched, seq, now)
  local MODE = frames.MODE
  local excess = { [0] = 0, 0, 0 }
  for _, frame in ipairs(list) do
    local mode, kept = frame.mode, frames.SUMMARY_KEPT
    meta.last_ms, meta.last_n = frames.next_id(meta.frame_count > 0 and meta.last_ms or nil, meta.last_n, now)
    meta.frame_count = meta.frame_count + 1
    meta.total_bytes = meta.total_bytes + #frame.payload
    if mode == MODE.durable then
      kept = meta.durable_kept
    elseif mode == MODE.summary then
      meta.summary_version = meta.summary_version + 1
    else
      meta.rate, kept = frames.size_best_effort(meta.rate, meta.rate_at, frame.live, now)
      meta.rate_at = now
      meta.ttl_max = math.max(meta.ttl_max, frame.live.ttl)
    end
    -- As if appended one by one: what one of them crowds out does not come back when a later one would have kept it.
    local retained, gone = frames.admit(meta.retained[mode], kept)
    meta.retained[mode] = retained
    excess[mode] = excess[mode] + gone
    add(tx, row, meta, frame)
  end
  for mode, count in pairs(excess) do
    if count > 0 then
      trim(tx, row, meta, mode, meta.retained[mode], count)
    end
  end
  local key = key_of(tx, row.ref)
  if patched then
    meta.first_applied_at = meta.first_applied_at or now
    meta.last_updated_at = now
    redis.call("HSET", key, document_field(row.attempt), patched)
  end
  if seq then
    meta.caller_seq, meta.caller_ms, meta.caller_n = seq, meta.last_ms, meta.last_n
    meta.caller_count, meta.caller_version = meta.frame_count, meta.summary_version
  end
  redis.call("HSET", key, row.attempt, pack(meta))
end

--- One mode's frames of a range, from the front.
local function walk_of(key, mode, after)
  return { key = key, mode = mode, after = after, entries = {}, at = 1 }
end

local function step(walk)
  walk.after = walk.entries[walk.at][1]
  walk.at = walk.at + 1
  walk.ms = nil
end

--- Milliseconds and number of the entry at the front. Told only where it is asked for: there are many.
local function place_of(walk)
  if not walk.ms then
    local ms, n = walk.entries[walk.at][1]:match("^(%d+)%-(%d+)$")
    walk.ms, walk.n = tonumber(ms), tonumber(n)
  end
  return walk.ms, walk.n
end

--- The time to live is the first value of a best-effort entry.
local function is_over(walk, entry, now)
  return walk.mode == frames.MODE.best_effort and not frames.is_visible(place_of(walk), tonumber(entry[2][2]), now)
end

--- Whether there is a visible entry at the front.
local function has_more(walk, range, now)
  while true do
    local entry = walk.entries[walk.at]
    if not entry then
      if walk.is_last then
        return false
      end
      local count = math.min(range.limit + 1, PAGE)
      walk.entries = redis.call("XRANGE", walk.key, "(" .. walk.after, range.to, "COUNT", count)
      walk.at = 1
      walk.is_last = #walk.entries < count
    elseif is_over(walk, entry, now) then
      step(walk)
    else
      return true
    end
  end
end

local function comes_first(walk, other)
  local ms, n = place_of(walk)
  local other_ms, other_n = place_of(other)
  return ms < other_ms or ms == other_ms and n < other_n
end

--- The walk with the earliest entry; those that have ended leave the list.
local function earliest(walks, range, now)
  for index = #walks, 1, -1 do
    if not has_more(walks[index], range, now) then
      table.remove(walks, index)
    end
  end
  local first = walks[1]
  for index = 2, #walks do
    if comes_first(walks[index], first) then
      first = walks[index]
    end
  end
  return first
end

local function is_behind(range, meta)
  local ms, n = range.after_ms, range.after_n
  return ms > meta.last_ms or ms == meta.last_ms and n >= meta.last_n
end

--- Copies what stands at the front, and goes on with what was read with it where no other mode comes between: `alone`.
local function copy_front(found, walk, limit, alone)
  local entries, count, bytes = walk.entries, found.count, found.bytes
  local at = walk.at
  repeat
    local entry = entries[at]
    local fields = entry[2]
    local size = #fields
    local place = count * FRAME_VALUES
    found[place + 1] = entry[1]
    found[place + 2] = walk.mode
    -- Before header and payload there may be a value of the mode's own.
    found[place + 3] = size > 4 and fields[2]
    found[place + 4] = fields[size - 2]
    found[place + 5] = fields[size]
    count = count + 1
    bytes = bytes + #fields[size]
    at = at + 1
  until not alone or not entries[at] or count > limit or bytes > PAGE_BYTES_MAX
  walk.after, walk.at, walk.ms = entries[at - 1][1], at, nil
  found.count, found.bytes = count, bytes
end

--- Frames of a range, oldest first. `range`: after_ms and after_n, exclusive; to, an id; limit; sees_all, or else no best-effort
--- frames.
--- @return values of each, up to one frame more than a page may hold: id, mode, version or time to live, header, payload
function streams.read(tx, ref, attempt, meta, range, now)
  local found = { count = 0, bytes = 0 }
  if is_behind(range, meta) then
    return found
  end
  local MODE = frames.MODE
  local after = text.of_number(range.after_ms) .. "-" .. text.of_number(range.after_n)
  local walks = {}
  for mode = 0, range.sees_all and MODE.best_effort or MODE.summary do
    if meta.retained[mode] > 0 then
      walks[#walks + 1] = walk_of(frames_key(tx, ref, attempt, mode), mode, after)
    end
  end
  -- Of what is over, most need not be looked at.
  local first_live = now - meta.ttl_max
  local live = walks[#walks]
  if live and live.mode == MODE.best_effort and first_live > range.after_ms then
    live.after = text.of_number(first_live - 1) .. "-18446744073709551615"
  end
  while found.count <= range.limit and found.bytes <= PAGE_BYTES_MAX do
    local walk = earliest(walks, range, now)
    if not walk then
      return found
    end
    copy_front(found, walk, range.limit, #walks == 1 and walk.mode ~= MODE.best_effort)
  end
  return found
end

--- When and by what an attempt ended; nothing while it is open, or where there was none.
function streams.end_of(tx, row, attempt, now)
  if row.attempt_id and attempt == row.attempt then
    return closing.end_of_attempt(row, side.details(row), now)
  end
  local archived = side.get(tx, row, "a" .. attempt)
  return archived and closing.end_of_archived(cjson.decode(archived)) or nil
end

--- Of columns, the first ones alone.
local function read_standing(tx, ref, attempt)
  local events = record.events_of(tx, ref)
  local packed = events and redis.call("HGET", key_of(tx, ref), attempt)
  if not packed then
    return events or -1, 0, 0
  end
  return events, select(2, cmsgpack.unpack_limit(packed, 2))
end

--- Whatever changes what a tail would be answered changes one of these: the number of events, and the last frame's id in two.
--- Nobody waits for an execution that cannot be read, and it must not be in the way of others: it is as none.
function streams.standing(tx, ref, attempt)
  local is_readable, events, last_ms, last_n = pcall(read_standing, tx, ref, attempt)
  if not is_readable then
    return -1, 0, 0
  end
  return events, last_ms, last_n
end

--- Removes all that the attempts of an execution put out. The server frees the memory beside its other work.
function streams.forget(tx, ref)
  local key = key_of(tx, ref)
  for _, field in ipairs(redis.call("HKEYS", key)) do
    if tonumber(field) then
      redis.call(
        "UNLINK",
        frames_key(tx, ref, field, frames.MODE.durable),
        frames_key(tx, ref, field, frames.MODE.summary),
        frames_key(tx, ref, field, frames.MODE.best_effort)
      )
    end
  end
  redis.call("UNLINK", key)
end
