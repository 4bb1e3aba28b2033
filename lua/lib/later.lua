-- Writes that the executions of one call share: they are put off, and made by one command for all values and one for each
-- index. What is put off is read back from here; whoever reads an index makes the writes first. Other calls write at once.

--- Arguments of one command at most, for all of them are on the stack.
local ARGS_MAX = 1000

local function nothing(known)
  return { known = known, values = {}, waits = {}, added = {}, removed = {} }
end

--- From here on the writes of this call are put off.
function later.begin(tx)
  tx.later = nothing({})
end

--- The value of a key where it is known without asking the server: false where there is none, nil where that is not known.
function later.known(tx, key)
  return tx.later and tx.later.known[key]
end

--- Asks for many values at once.
function later.expect(tx, keys)
  if not tx.later or #keys < 2 then
    return
  end
  local known = tx.later.known
  for index, value in ipairs(redis.call("MGET", unpack(keys))) do
    -- What is no value is not there for MGET; who asks for it alone is told that it cannot be read.
    known[keys[index]] = known[keys[index]] or value or nil
  end
end

--- Finds out whether none of these keys is there, as is usual for new ones.
function later.expect_none(tx, keys)
  if not tx.later or redis.call("EXISTS", unpack(keys)) > 0 then
    return
  end
  for _, key in ipairs(keys) do
    tx.later.known[key] = false
  end
end

function later.set(tx, key, value)
  local writes = tx.later
  if not writes then
    redis.call("SET", key, value)
    return
  end
  local values = writes.values
  values[#values + 1] = key
  values[#values + 1] = value
  writes.known[key], writes.waits[key] = value, true
end

--- Whether a value of this key has been put off.
function later.waits(tx, key)
  return tx.later and tx.later.waits[key]
end

local function list_of(lists, key)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  return list
end

function later.add(tx, key, score, member)
  if not tx.later then
    redis.call("ZADD", key, score, member)
    return
  end
  local list = list_of(tx.later.added, key)
  list[#list + 1] = score
  list[#list + 1] = member
end

function later.remove(tx, key, member)
  if not tx.later then
    redis.call("ZREM", key, member)
    return
  end
  local list = list_of(tx.later.removed, key)
  list[#list + 1] = member
end

--- A counter of the cell.
function later.count(tx, name, value)
  if tx.later then
    tx.later.counter, tx.later.counted = name, value
  else
    redis.call("HSET", tx.base, name, value)
  end
end

--- Makes the writes that were put off. The caller sees to it that no execution is written twice between two of these.
function later.flush(tx)
  local writes = tx.later
  if not writes then
    return
  end
  tx.later = nothing(writes.known)
  if writes.counter then
    redis.call("HSET", tx.base, writes.counter, writes.counted)
  end
  if #writes.values > 0 then
    redis.call("MSET", unpack(writes.values))
  end
  for key, members in pairs(writes.removed) do
    redis.call("ZREM", key, unpack(members))
  end
  for key, members in pairs(writes.added) do
    redis.call("ZADD", key, unpack(members))
  end
end

--- To be called between two executions of many.
function later.flush_if_many(tx)
  if tx.later and #tx.later.values >= ARGS_MAX then
    later.flush(tx)
  end
end
