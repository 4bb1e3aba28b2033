-- Worker identities by number: a lease names one of these instead of two texts.

--- The number of a worker instance; made at first use.
function holders.ensure(tx, worker_id, instance_id)
  local name = worker_id .. "\n" .. instance_id
  local known = redis.call("HGET", tx.base .. ":holders", name)
  if known then
    return tonumber(known)
  end
  local id = redis.call("HINCRBY", tx.base, "holders", 1)
  redis.call("HSET", tx.base .. ":holders", name, id)
  redis.call("HSET", tx.base .. ":holder", id, name)
  numbers.mark(tx, "holder", id)
  return id
end

--- The two texts, joined by a newline.
function holders.name(tx, id)
  local name = redis.call("HGET", tx.base .. ":holder", id)
  if not name then
    error({ err = "FFCORRUPT holder " .. id })
  end
  return name
end
