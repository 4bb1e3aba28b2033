-- Positions in the stream of fed events, which are its ids.

local function key_of(tx)
  return tx.base .. ":e"
end

local function parts_of(id)
  local ms, seq = id:match("^(%d+)%-(%d+)$")
  return tonumber(ms), tonumber(seq)
end

--- Is the first position before the second?
function feeds.is_before(first, second)
  local ms, seq = parts_of(first)
  local other_ms, other_seq = parts_of(second)
  return ms < other_ms or ms == other_ms and seq < other_seq
end

--- Up to here events are gone: what is read on from an earlier position would have a gap.
function feeds.floor(tx)
  return redis.call("HGET", tx.base, "feed_floor") or "0-0"
end

--- The position behind everything so far, however much of it is gone.
function feeds.newest(tx)
  local told = redis.pcall("XINFO", "STREAM", key_of(tx))
  local newest = feeds.floor(tx)
  -- No stream: no event yet, or the server was emptied.
  if told.err then
    return newest
  end
  for at = 1, #told, 2 do
    if told[at] == "last-generated-id" and feeds.is_before(newest, told[at + 1]) then
      newest = told[at + 1]
    end
  end
  return newest
end

--- Notes that events up to this id were dropped. Never lowered, and never ahead of the newest event: whoever has read all of
--- them has missed nothing.
function feeds.raise_floor(tx, id)
  local newest = feeds.newest(tx)
  if feeds.is_before(newest, id) then
    id = newest
  end
  if feeds.is_before(feeds.floor(tx), id) then
    redis.call("HSET", tx.base, "feed_floor", id)
  end
end
