-- Holds every record against its index entries, and every entry against its record. The server changes both together; they
-- differ only where something else wrote to the keys, or some were evicted. What an execution has put out goes with it, but for
-- a purge by a version that knew of no streams: what such a one has left goes here.

--- Keys looked at in one step, whosever they are, and how many steps a call takes until it has met enough of ours.
local KEYS_PER_SCAN = 1000
local SCANS_MAX = 10
local KEYS_MET = 500
local ENTRIES_PER_PAGE = 500

local function is_home(at)
  for _, known in pairs(state.HOME) do
    if known == at then
      return true
    end
  end
  return false
end

--- What an index should say of a row; nothing where it should not have it.
local EXPECTED = {
  h = function(tx, row, key)
    if key == grants.index_of(tx, row.route) then
      return row.grant_until
    end
    return key == record.index_of(tx, row.route, row.home) and record.index_score(row) or nil
  end,
  t = function(_, row)
    return record.timer_of(row)
  end,
  all = function(_, row)
    return row.seq
  end,
  g = function(tx, row, key)
    local tag, value = key:sub(#tx.base + 4):match("^([^\n]*)\n(.*)$")
    return text.decoded(row.tags)[tag] == value and -row.created_at or nil
  end,
}

local function kind_of(tx, key)
  return key:sub(#tx.base + 2):match("^(%a+)")
end

--- @return 1 where the entry was missing or wrong
local function ensure(key, score, ref)
  if tonumber(redis.call("ZSCORE", key, ref) or "") == score then
    return 0
  end
  redis.call("ZADD", key, text.of_number(score), ref)
  return 1
end

--- The row, or nothing where there is none. @throws where it cannot be read, or stands nowhere
local function read(tx, ref)
  local row = record.find(tx, ref)
  if row then
    routes.find(tx, row.route)
    if not is_home(row.home) then
      error({ err = "FFCORRUPT " .. text.of_ref(ref) .. " home" })
    end
  end
  return row
end

--- @return how many of its entries were missing or wrong; nothing where it cannot be read
local function repair_record(tx, ref)
  local is_readable, row = pcall(read, tx, ref)
  if not is_readable then
    return nil
  end
  if not row then
    return 0
  end
  local of_home = ensure(record.index_of(tx, row.route, row.home), record.index_score(row), ref)
  if of_home > 0 then
    session.ring(tx, row.route)
  end
  local timer_at = record.timer_of(row)
  local of_timer = timer_at and ensure(tx.base .. ":t", timer_at, ref) or 0
  if of_timer > 0 then
    session.ring_timer(tx, timer_at - tx.now)
  end
  local of_grant = row.grant_until and ensure(grants.index_of(tx, row.route), row.grant_until, ref) or 0
  local repaired = of_home + of_timer + of_grant + ensure(tx.base .. ":all", row.seq, ref)
  for tag, value in pairs(text.decoded(row.tags)) do
    repaired = repaired + ensure(tx.base .. ":g:" .. tag .. "\n" .. value, -row.created_at, ref)
  end
  return repaired
end

--- @return 1 where the entry led nowhere or was wrong
local function repair_entry(tx, key, ref)
  local is_readable, row = pcall(read, tx, ref)
  if not is_readable then
    return 0
  end
  local expected = row and EXPECTED[kind_of(tx, key)](tx, row, key)
  if not expected then
    redis.call("ZREM", key, ref)
    return 1
  end
  return ensure(key, expected, ref)
end

local function concerns(ref, partition)
  return #ref == 18 and (not partition or text.partition_of(ref) == partition)
end

--- The execution whose streams a key is of; nothing where it is of none.
local function ref_of_stream(tx, key)
  local kind = kind_of(tx, key)
  local from = #tx.base + 4
  return (kind == "s" or kind == "f") and key:sub(from, from + 17) or nil
end

--- @return 1 where there is no such execution
local function remove_stray(tx, key, ref)
  return record.exists(tx, ref) and 0 or redis.call("UNLINK", key)
end

--- Some of the cell's keys: the records among them. `cursor` is "0" at first; `partition` may be nothing.
--- @return how many entries were repaired, how many records could not be read, where to go on ("0" at the end; a place that
--- was passed already where there were `limit` repairs), and the indexes that were met
function reconcile.records(tx, cursor, limit, partition)
  local repaired, unreadable, met, indexes = 0, 0, 0, {}
  local records = tx.base .. ":x:"
  -- Among the keys of others there may be few of ours.
  for _ = 1, SCANS_MAX do
    local page = redis.call("SCAN", cursor, "MATCH", tx.base .. ":*", "COUNT", KEYS_PER_SCAN)
    for _, key in ipairs(page[2]) do
      if repaired >= limit then
        return repaired, unreadable, cursor, indexes
      end
      local ref = key:sub(#records + 1)
      if EXPECTED[kind_of(tx, key)] then
        indexes[#indexes + 1] = key
      elseif key:sub(1, #records) == records and concerns(ref, partition) then
        local count = repair_record(tx, ref)
        repaired = repaired + (count or 0)
        unreadable = unreadable + (count and 0 or 1)
      else
        local of_stream = ref_of_stream(tx, key)
        if of_stream and concerns(of_stream, partition) then
          repaired = repaired + remove_stray(tx, key, of_stream)
        end
      end
    end
    cursor = page[1]
    met = met + #page[2]
    if cursor == "0" or met >= KEYS_MET then
      break
    end
  end
  return repaired, unreadable, cursor, indexes
end

--- One page of entries of these indexes. `cursor`: where to begin in the first of them, "0" at first.
--- @return how many were repaired, how many of the indexes are done, and where to go on in the next one
function reconcile.entries(tx, indexes, cursor, limit, partition)
  local repaired, looked = 0, 0
  for done, key in ipairs(indexes) do
    repeat
      local page = redis.call("ZSCAN", key, cursor, "COUNT", ENTRIES_PER_PAGE)
      local entries = page[2]
      for i = 1, #entries, 2 do
        if repaired >= limit then
          return repaired, done - 1, cursor
        end
        if concerns(entries[i], partition) then
          repaired = repaired + repair_entry(tx, key, entries[i])
        end
      end
      cursor = page[1]
      looked = looked + #entries / 2
      if looked >= ENTRIES_PER_PAGE and cursor ~= "0" then
        return repaired, done - 1, cursor
      end
    until cursor == "0"
    if looked >= ENTRIES_PER_PAGE then
      return repaired, done, cursor
    end
  end
  return repaired, #indexes, "0"
end
