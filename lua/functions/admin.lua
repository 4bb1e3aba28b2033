-- The store as a process sees it: what it was made with, and the numbers that processes keep in memory.

--- Fixes settings at first boot. Arguments: name and value of each. Allowed at the memory limit, or no process could come to
--- drain it.
--- @return the values that stand
operation.drain("settle", function(tx, args)
  local standing = {}
  for i = 1, #args, 2 do
    redis.call("HSETNX", tx.base, args[i], args[i + 1])
    standing[#standing + 1] = tonumber(redis.call("HGET", tx.base, args[i]))
  end
  return standing
end)

--- A write, whatever else was: those who wait for replicas wait until these have it, and so all before it.
operation.drain("touch", function(tx)
  redis.call("HSET", tx.base, "touched", tx.now)
end)

--- Names of routes beyond a number, in order. Arguments: the mark of that number, as numbers.are_stale reads it.
--- @return the names, the mark of the newest
operation.read("routes", function(tx, args)
  if numbers.are_stale(tx, args[1]) then
    return answer.STALE
  end
  local names = {}
  for id = tonumber(args[1]:match("^%d+")) + 1, routes.count(tx) do
    names[#names + 1] = redis.call("HGET", tx.base .. ":route", id)
  end
  return { names, numbers.mark_of(tx, "route", routes.count(tx)) }
end)

--- The number of a worker instance. Arguments: worker id, instance id. @return the number, its mark
operation.drain("ensure_holder", function(tx, args)
  local id = holders.ensure(tx, args[1], args[2])
  return { id, numbers.mark_of(tx, "holder", id) }
end)

--- The store's clock.
operation.read("now", function(tx)
  return { tx.now }
end)
