-- One call: the cell it works on, its instant, and what has to be told when its writes are there to be seen. A cell is a
-- complete small store: all its keys begin with one base, whose hash tag puts them on one node. Standalone there is one
-- cell, in a cluster there are several; everything of an execution lies in one.

function session.open(base)
  local now, micros = clock.now(base)
  return { base = base, now = now, micros = micros, rung = {}, indexes = {} }
end

function session.key(tx, name)
  return tx.base .. ":" .. name
end

--- Something changed on this route that a parked claim may take now, or `due_in` milliseconds from now.
function session.ring(tx, route, due_in)
  local earlier = tx.rung[route]
  due_in = math.max(0, due_in or 0)
  if not earlier or due_in < earlier then
    tx.rung[route] = due_in
  end
end

--- A timer somewhere in the cell is due by then; whoever is parked drives it, whatever its lanes.
function session.ring_timer(tx, due_in)
  if not tx.timer_in or due_in < tx.timer_in then
    tx.timer_in = due_in
  end
end

--- An execution changed: whoever waits for results, events or notices looks.
function session.news(tx)
  tx.has_news = true
end

--- Someone else ended a lease of this holder (a number): it is told.
function session.tell(tx, holder)
  tx.told = tx.told or {}
  tx.told[holder] = true
end

--- A stream of this execution has something new: the attempt, with " live" where it is best effort only; nothing where an attempt
--- may have ended.
function session.ring_stream(tx, ref, attempt)
  tx.streams = tx.streams or {}
  tx.streams[ref] = attempt or ""
end

--- A route was made: processes that serve its lane must get to know it.
function session.new_route(tx)
  tx.has_new_route = true
end

--- Tells what was collected. A channel that nobody listens to costs a look into a table.
function session.close(tx)
  local base = tx.base
  if tx.has_new_route then
    redis.call("PUBLISH", base .. "!routes", "")
  end
  for route, due_in in pairs(tx.rung) do
    redis.call("PUBLISH", base .. "!" .. route, text.of_number(due_in))
  end
  if tx.timer_in then
    redis.call("PUBLISH", base .. "!timer", text.of_number(tx.timer_in))
  end
  if tx.has_news then
    redis.call("PUBLISH", base .. "!news", "")
  end
  for ref, attempt in pairs(tx.streams or {}) do
    redis.call("PUBLISH", base .. "!stream:" .. ref, attempt)
  end
  for holder in pairs(tx.told or {}) do
    redis.call("PUBLISH", base .. "!holder:" .. holders.name(tx, holder):match("\n(.*)$"), "")
  end
end
