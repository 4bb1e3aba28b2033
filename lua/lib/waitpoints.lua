-- Records of waitpoints. One takes signals while it is pending or active; each way out of that is here. They lie in a hash
-- beside the record of their execution, which an execution without any does not have: fields "w" and an id, and "o", the open
-- ones in order of their ids, each with the instant until which it is pending.

local ID, ENTRY = 16, 24
--- Fields in one command.
local AT_ONCE = 500

--- Also of what suspensions keep.
function waitpoints.key_of(tx, ref)
  return tx.base .. ":w:" .. ref
end

--- Whether there ever was one.
function waitpoints.any(row)
  return record.has_part(row, record.PART.waitpoints)
end

--- The caller saves the row.
function waitpoints.note_any(row)
  record.set_part(row, record.PART.waitpoints, true)
end

--- print: the first 8 bytes of the token's digest, which lists show; suspension: the id of the one that it belongs to;
--- first_signal and last_signal: between these numbers are its signals.
local COLUMNS = {
  "attempt",
  "state",
  "key",
  "kid",
  "print",
  "created_at",
  "activated_at",
  "expires_at",
  "suspension",
  "signals",
  "matched",
  "last_signal_at",
  "first_signal",
  "last_signal",
  "closed_at",
  "close_reason",
}

local function unpacked(id, bytes)
  local waitpoint = packed.read(COLUMNS, bytes)
  waitpoint.id = id
  return waitpoint
end

function waitpoints.find(tx, row, id)
  local bytes = waitpoints.any(row) and redis.call("HGET", waitpoints.key_of(tx, row.ref), "w" .. id)
  return bytes and unpacked(id, bytes) or nil
end

--- Those of these ids that there are, in their order.
function waitpoints.find_all(tx, row, ids)
  local found = {}
  for first = 1, #ids, AT_ONCE do
    local fields = {}
    for at = first, math.min(first + AT_ONCE - 1, #ids) do
      fields[#fields + 1] = "w" .. ids[at]
    end
    for place, bytes in ipairs(redis.call("HMGET", waitpoints.key_of(tx, row.ref), unpack(fields))) do
      if bytes then
        found[#found + 1] = unpacked(ids[first + place - 1], bytes)
      end
    end
  end
  return found
end

--- Ids one behind the other, as a list.
function waitpoints.ids_of(joined)
  local ids = {}
  for from = 1, #joined, ID do
    ids[#ids + 1] = joined:sub(from, from + ID - 1)
  end
  return ids
end

function waitpoints.save(tx, row, waitpoint)
  redis.call("HSET", waitpoints.key_of(tx, row.ref), "w" .. waitpoint.id, packed.write(COLUMNS, waitpoint))
end

--- Each { id, until }, by id.
local function read_open(tx, row)
  local joined = redis.call("HGET", waitpoints.key_of(tx, row.ref), "o") or ""
  local open = {}
  for from = 1, #joined, ENTRY do
    open[#open + 1] = { joined:sub(from, from + ID - 1), (struct.unpack(">d", joined, from + ID)) }
  end
  return open
end

local function write_open(tx, row, open)
  local entries = {}
  for place, entry in ipairs(open) do
    entries[place] = entry[1] .. struct.pack(">d", entry[2])
  end
  if #entries > 0 then
    redis.call("HSET", waitpoints.key_of(tx, row.ref), "o", table.concat(entries))
  else
    redis.call("HDEL", waitpoints.key_of(tx, row.ref), "o")
  end
end

--- The ids of those that take signals at this instant, by id.
function waitpoints.open_ids(tx, row, now)
  local ids = {}
  for _, entry in ipairs(waitpoints.any(row) and read_open(tx, row) or {}) do
    if entry[2] > now then
      ids[#ids + 1] = entry[1]
    end
  end
  return ids
end

local function pending_key(tx)
  return tx.base .. ":p"
end

local function until_of(waitpoint)
  return waitpoint.state == suspension.WAITPOINT.pending and waitpoint.expires_at or math.huge
end

--- What is open now, and what of it is pending, is written down again. `changed`: waitpoints by id.
local function reindex(tx, row, changed)
  local WAITPOINT = suspension.WAITPOINT
  local open, seen = {}, {}
  for _, entry in ipairs(read_open(tx, row)) do
    local waitpoint = changed[entry[1]]
    seen[entry[1]] = true
    if not waitpoint then
      open[#open + 1] = entry
    else
      if entry[2] < math.huge then
        redis.call("ZREM", pending_key(tx), row.ref .. waitpoint.id)
      end
      if waitpoint.state < WAITPOINT.closed then
        open[#open + 1] = { waitpoint.id, until_of(waitpoint) }
      end
    end
  end
  for id, waitpoint in pairs(changed) do
    if not seen[id] then
      open[#open + 1] = { id, until_of(waitpoint) }
      if waitpoint.state == WAITPOINT.pending then
        redis.call("ZADD", pending_key(tx), text.of_number(waitpoint.expires_at), row.ref .. id)
      end
    end
  end
  table.sort(open, function(a, b)
    return text.is_before(a[1], b[1])
  end)
  write_open(tx, row, open)
end

local function save_all(tx, row, all)
  local changed = {}
  for _, waitpoint in ipairs(all) do
    waitpoints.save(tx, row, waitpoint)
    changed[waitpoint.id] = waitpoint
  end
  if #all > 0 then
    reindex(tx, row, changed)
  end
end

--- New ones of the attempt that runs: each id, key, kid, print, expires_at, and suspension for one that is active from the
--- start. The caller saves the row.
function waitpoints.insert(tx, row, all, now)
  local WAITPOINT = suspension.WAITPOINT
  for _, waitpoint in ipairs(all) do
    waitpoint.attempt = row.attempt
    waitpoint.state = waitpoint.suspension and WAITPOINT.active or WAITPOINT.pending
    waitpoint.created_at = now
    waitpoint.activated_at = waitpoint.suspension and now
    waitpoint.signals = 0
    waitpoint.matched = 0
  end
  waitpoints.note_any(row)
  save_all(tx, row, all)
end

--- A pending one becomes part of a suspension; token and creation time stay.
function waitpoints.activate(tx, row, waitpoint, suspension_id, expires_at, now)
  waitpoint.state = suspension.WAITPOINT.active
  waitpoint.activated_at = now
  waitpoint.expires_at = expires_at
  waitpoint.suspension = suspension_id
  save_all(tx, row, { waitpoint })
end

function waitpoints.close(tx, row, waitpoint, reason, now)
  waitpoint.state = suspension.WAITPOINT.closed
  waitpoint.closed_at = now
  waitpoint.close_reason = reason
  save_all(tx, row, { waitpoint })
end

--- All open ones in this state; others stay.
local function change_open(tx, row, at, change)
  local ids = {}
  for _, entry in ipairs(read_open(tx, row)) do
    ids[#ids + 1] = entry[1]
  end
  local changed = {}
  for _, waitpoint in ipairs(waitpoints.find_all(tx, row, ids)) do
    if waitpoint.state == at then
      change(waitpoint)
      changed[#changed + 1] = waitpoint
    end
  end
  save_all(tx, row, changed)
end

local function close_open(tx, row, at, reason, now)
  change_open(tx, row, at, function(waitpoint)
    waitpoint.state = suspension.WAITPOINT.closed
    waitpoint.closed_at = now
    waitpoint.close_reason = reason
  end)
end

--- Those of the suspension that ends; pending ones stay, for their attempt goes on.
function waitpoints.close_active(tx, row, reason, now)
  close_open(tx, row, suspension.WAITPOINT.active, reason, now)
end

--- The attempt that they were made for is over.
function waitpoints.close_pending(tx, row, now)
  close_open(tx, row, suspension.WAITPOINT.pending, "attempt_ended", now)
end

--- After an escalation they take signals without an end.
function waitpoints.unlimit_active(tx, row)
  change_open(tx, row, suspension.WAITPOINT.active, function(waitpoint)
    waitpoint.expires_at = nil
  end)
end

--- Closes one that is still pending when its time is up. @return whether it was
function waitpoints.expire_if_due(tx, row, id, now)
  local WAITPOINT = suspension.WAITPOINT
  local waitpoint = waitpoints.find(tx, row, id)
  if not waitpoint or waitpoint.state ~= WAITPOINT.pending or waitpoint.expires_at > now then
    return false
  end
  waitpoint.state = WAITPOINT.expired
  waitpoint.closed_at = now
  waitpoint.close_reason = "never_committed"
  save_all(tx, row, { waitpoint })
  return true
end

--- The same of up to `limit` of the cell. @return how many
function waitpoints.expire_due(tx, limit)
  local due = redis.call("ZRANGE", pending_key(tx), "-inf", text.of_number(tx.now), "BYSCORE", "LIMIT", 0, limit)
  local done = 0
  for _, member in ipairs(due) do
    local ref, id = member:sub(1, -ID - 1), member:sub(-ID)
    local is_readable, row = pcall(record.find, tx, ref)
    if is_readable and row and waitpoints.expire_if_due(tx, row, id, tx.now) then
      done = done + 1
    else
      redis.call("ZREM", pending_key(tx), member)
    end
  end
  return done
end

--- When the next pending one of the cell is over.
function waitpoints.next_expiry_at(tx)
  return tonumber(redis.call("ZRANGE", pending_key(tx), 0, 0, "WITHSCORES")[2])
end

--- The number of a signal among those of its execution, and whether some leaf took it for its own. The caller saves it.
function waitpoints.count_signal(waitpoint, number, is_match, now)
  waitpoint.signals = waitpoint.signals + 1
  waitpoint.matched = waitpoint.matched + (is_match and 1 or 0)
  waitpoint.last_signal_at = now
  waitpoint.first_signal = waitpoint.first_signal or number
  waitpoint.last_signal = number
end
