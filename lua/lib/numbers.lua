-- Numbers that processes keep in memory: of routes, and of holders. A server that was emptied, or that came back without what
-- it wrote last, deals out the same numbers anew. So each has a mark, the instant at which it was made, and whoever sends
-- numbers sends with them the mark of the newest route that it knows, and of the holder: `<route> <mark> <holder> <mark>`.
-- As routes are only ever added, the newest vouches for all before it.

--- Notes the mark of a new number. `kind`: "route" or "holder". @return the mark
function numbers.mark(tx, kind, id)
  local mark = text.of_number(tx.now * 1000 + tx.micros)
  redis.call("HSET", tx.base, kind .. id, mark)
  return mark
end

--- The mark of a number; an empty one where there is no such number.
function numbers.mark_of(tx, kind, id)
  return redis.call("HGET", tx.base, kind .. id) or ""
end

--- Whether the caller's numbers mean something else here, or nothing. Also reads how many routes there are.
--- Commands: 1.
function numbers.are_stale(tx, known)
  local route, route_mark, holder, holder_mark = known:match("^(%d+) (%d*) ?(%d*) ?(%d*)$")
  local stored = redis.call("HMGET", tx.base, "routes", "route" .. route, "holder" .. holder)
  tx.route_count = tonumber(stored[1] or 0)
  return (stored[2] or "") ~= route_mark or (stored[3] or "") ~= holder_mark
end
