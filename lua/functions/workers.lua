-- Who is alive and what they can do. Every cell has the whole registry; what the first one says is answered.

--- A worker as six arguments: namespace, instance id, worker id, lanes and capabilities (JSON lists), ttl.
local function worker_of(args, from)
  return {
    namespace = args[from],
    instance_id = args[from + 1],
    worker_id = args[from + 2],
    lanes = args[from + 3],
    capabilities = args[from + 4],
    ttl = tonumber(args[from + 5]),
  }
end

--- Arguments: a worker, then when it was registered, where another cell has found that out already.
--- @return "registered" or "refreshed", registered at
operation.drain("register_worker", function(tx, args)
  local worker, registered_at = worker_of(args, 1), tonumber(args[7])
  if registered_at then
    registry.write(tx, worker, registered_at)
    return { "refreshed", registered_at }
  end
  local known = registry.find(tx, worker.namespace, worker.instance_id)
  local live = known and registry.is_live(known, tx.now) and known
  if live and live.workerId ~= worker.worker_id then
    return answer.refuse("invalid_input", {
      reason = "instance_id reassigned: '" .. worker.instance_id .. "' is live as worker '" .. live.workerId .. "'",
      field = "workerInstanceId",
    })
  end
  registered_at = live and live.registeredAtMs or tx.now
  registry.write(tx, worker, registered_at)
  return { live and "refreshed" or "registered", registered_at }
end)

--- Arguments: namespace, instance id. @return until when it counts as alive; nothing where it does not
operation.drain("heartbeat_worker", function(tx, args)
  return { answer.or_false(registry.beat(tx, args[1], args[2])) }
end)

--- Arguments: namespace, instance id; "1" and a reason where its leases are to be marked lapsed. @return 1 if it was alive
operation.drain("remove_worker", function(tx, args)
  local was_live = registry.remove(tx, args[1], args[2])
  if args[3] == "1" then
    registry.expire_leases(tx, args[1], args[2], args[4])
  end
  return { was_live and 1 or 0 }
end)

--- Arguments: namespace or nothing, the instance behind which to begin or nothing, limit.
--- @return workers ({ instance id, namespace, JSON }), 1 if there are more
operation.read("workers", function(tx, args)
  local namespace, after = args[1] ~= "" and args[1] or nil, args[2] ~= "" and args[2] or nil
  local found, more = registry.list(tx, namespace, after, tonumber(args[3]))
  return { found, more and 1 or 0 }
end)
