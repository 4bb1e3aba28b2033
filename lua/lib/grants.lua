-- The record of a real grant. One per execution; nothing once its time is up.

function grants.is_live(row, now)
  return row.grant_until ~= nil and row.grant_until > now
end

--- Grants of a route by their end: a parked claim looks again then.
function grants.index_of(tx, route)
  return tx.base .. ":h:" .. route .. ":granted"
end

--- `request`: worker_id, instance_id, ttl, notes (JSON or nothing). The caller saves the row.
function grants.write(tx, row, kind, request, now)
  local expires_at = now + request.ttl
  side.set(
    tx,
    row,
    "grant",
    text.encode({
      kind = kind,
      workerId = request.worker_id,
      instanceId = request.instance_id,
      createdAtMs = now,
      expiresAtMs = expires_at,
      notes = request.notes,
    })
  )
  redis.call("ZADD", grants.index_of(tx, row.route), text.of_number(expires_at), row.ref)
  row.grant_until = expires_at
  row.mutated_at = now
  log.append(tx, row, "granted", now, "engine", {
    transition = false,
    data = {
      kind = kind,
      workerId = request.worker_id,
      workerInstanceId = request.instance_id,
      expiresAtMs = expires_at,
    },
  })
  return expires_at
end

--- { kind, workerId, instanceId, expiresAtMs … }, or nothing.
function grants.read(tx, row)
  if not row.grant_until then
    return nil
  end
  return text.decoded(side.get(tx, row, "grant"))
end

--- The caller saves the row.
function grants.drop(tx, row)
  if not row.grant_until then
    return
  end
  row.grant_until = nil
  side.drop(tx, row, "grant")
  redis.call("ZREM", grants.index_of(tx, row.route), row.ref)
end
