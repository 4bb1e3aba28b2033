-- What time brings about, as claims drive it and as sweeps run it.

--- The row, or nothing where it is missing or of another namespace.
local function find(tx, ref, namespace)
  local row = record.find(tx, ref)
  if row and namespace ~= "" and routes.find(tx, row.route).namespace ~= namespace then
    return nil
  end
  return row
end

--- A portion beside a claim. Arguments: a random number; who claims: namespace, instance id, worker id, lanes and capabilities
--- (JSON lists); when this process last noted that, or nothing.
--- Commands: 4 where another process has just driven the cell; else 2 for the timers, 1 for waitpoints, and 3 for each route.
--- @return the instant, 1 if the claim was noted, 1 if there may be more to do, next timer in, how many routes there are
operation.drain("drive", function(tx, args)
  local noted = registry.note_claim(tx, {
    namespace = args[2],
    instance_id = args[3],
    worker_id = args[4],
    lanes = args[5],
    capabilities = args[6],
    written_at = tonumber(args[7]),
  })
  local more, timer_at = portions.drive(tx, tonumber(args[1]))
  return {
    tx.now,
    noted and 1 or 0,
    more and 1 or 0,
    timer_at and math.max(0, timer_at - tx.now) or false,
    routes.count(tx),
  }
end)

--- One portion of a sweep. Arguments: its name, limit, a random number, retention, retention of feeds, most events in feeds.
--- @return how many effects, 1 if there may be more, when there will be something to do
operation.drain("sweep", function(tx, args)
  local limit = tonumber(args[2])
  local processed, more = portions.SWEEPS[args[1]](tx, {
    limit = limit,
    random = tonumber(args[3]),
    retention = tonumber(args[4]),
    feed_retention = tonumber(args[5]),
    feed_events_max = tonumber(args[6]),
  })
  local is_more = more or processed >= limit
  return { processed, is_more and 1 or 0, answer.or_false(portions.next_due_at(tx, args[1])) }
end)

--- Arguments: ref, namespace. @return "markedExpired", or why there is nothing to mark
operation.drain("mark_lease_expired", function(tx, args)
  local row = find(tx, args[1], args[2])
  if not row then
    return { "execution_not_found" }
  end
  if state.phase(row.home) ~= "active" then
    return { "not_active" }
  end
  if row.home == state.HOME.lapsed then
    return { "already_expired" }
  end
  if row.home == state.HOME.revoked then
    return { "already_revoked" }
  end
  if not lifecycle.mark_lapsed_if_due(tx, row, record.now(tx, row)) then
    return { "not_yet_expired" }
  end
  record.save(tx, row)
  lifecycle.ring(tx, row)
  return { "markedExpired" }
end)

--- Arguments: ref, namespace. @return what became of it
operation.drain("promote_delayed", function(tx, args)
  local row = find(tx, args[1], args[2])
  if not row then
    return { "notFoundCleaned" }
  end
  if not state.is_runnable(row.home) then
    return { "notRunnableCleaned" }
  end
  if row.home ~= state.HOME.delayed then
    return { "notDelayedCleaned" }
  end
  if not lifecycle.promote_if_due(tx, row, record.now(tx, row)) then
    return { "notYetDue" }
  end
  record.save(tx, row)
  lifecycle.ring(tx, row)
  return { "promoted" }
end)

--- Arguments: ref, namespace, reason, a random number, the attempt and the due time that are meant, or nothing.
--- @return what became of it
operation.drain("expire", function(tx, args)
  local row = find(tx, args[1], args[2])
  if not row then
    return { "notFoundCleaned" }
  end
  local only = { attempt = tonumber(args[5]), due_at = tonumber(args[6]) }
  return { expiry.expire(tx, row, args[3], tonumber(args[4]), only) }
end)

--- Arguments: ref, namespace. @return "applied" and the behaviour, or why there is nothing to do
operation.drain("expire_suspension", function(tx, args)
  local row = find(tx, args[1], args[2])
  if not row then
    return { "notFoundCleaned" }
  end
  return { suspending.time_out(tx, row) }
end)

--- Arguments: ref, namespace, the waitpoint. @return "expired" or "noOp"
operation.drain("expire_waitpoint", function(tx, args)
  local row = find(tx, args[1], args[2])
  local is_expired = row and waitpoints.expire_if_due(tx, row, args[3], record.now(tx, row))
  return { is_expired and "expired" or "noOp" }
end)

--- Arguments: retention, limit, lane and partition or nothing. @return how many executions were purged
operation.drain("trim_retention", function(tx, args)
  local lane = args[3] ~= "" and args[3] or nil
  return { purge.due(tx, tonumber(args[1]), tonumber(args[2]), lane, tonumber(args[4])) }
end)

--- A page of records held against their index entries. Arguments: where to begin, most repairs, partition or nothing.
--- @return repaired, unreadable, where to go on ("0" at the end), indexes met
operation.drain("reconcile_records", function(tx, args)
  return { reconcile.records(tx, args[1], tonumber(args[2]), tonumber(args[3])) }
end)

--- A page of index entries held against their records. Arguments: where to begin in the first of the indexes, most repairs,
--- partition or nothing, the indexes. @return repaired, how many of the indexes are done, where to go on in the next
operation.drain("reconcile_entries", function(tx, args)
  local indexes = {}
  for i = 4, #args do
    indexes[#indexes + 1] = args[i]
  end
  return { reconcile.entries(tx, indexes, args[1], tonumber(args[2]), tonumber(args[3])) }
end)
