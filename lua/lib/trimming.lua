-- What feeds no longer owe to anyone: events beyond their time, or beyond their number.

--- So many events go in one call at most. They go by whole blocks, so that this takes about a millisecond.
local DROPPED_MAX = 100000

local function trim_to(key, count)
  redis.call("XTRIM", key, "MAXLEN", text.of_number(count))
end

--- The last of the oldest events that are more than may be kept; nothing where there are not. All before it are gone then.
local function last_beyond(tx, key, keep)
  if redis.call("XLEN", key) <= keep then
    return nil
  end
  trim_to(key, keep + 1)
  return redis.call("XRANGE", key, "-", "+", "COUNT", 1)[1][1]
end

--- Ids begin with the event's time, so that the last that is old enough is found by its place.
local function last_before(key, old_at)
  local found = redis.call("XREVRANGE", key, text.of_number(old_at), "-", "COUNT", 1)
  return found[1] and found[1][1]
end

local function drop_up_to(tx, key, id)
  local ms, place = id:match("^(%d+)%-(%d+)$")
  feeds.raise_floor(tx, id)
  redis.call("XTRIM", key, "MINID", ms .. "-" .. text.of_number(tonumber(place) + 1))
end

--- Drops events up to an instant, and the oldest beyond a number. Feeds begin behind the newest that was dropped.
--- @return how many were dropped, and whether there are more to drop
function trimming.trim(tx, old_at, keep)
  local key = tx.base .. ":e"
  local count = redis.call("XLEN", key)
  local kept = math.max(keep, count - DROPPED_MAX)
  for _, last in ipairs({ last_beyond(tx, key, kept) or false, last_before(key, old_at) or false }) do
    if last then
      drop_up_to(tx, key, last)
    end
  end
  return count - redis.call("XLEN", key), kept > keep
end
