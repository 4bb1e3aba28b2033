-- Keeping a lease, and taking it away.

--- The fence of a call, as four arguments: lease, epoch, attempt_id, attempt; each may be empty.
function operation.read_fence(args, from)
  local function given(value)
    return value ~= "" and value or nil
  end
  return {
    lease = given(args[from]),
    epoch = tonumber(args[from + 1]),
    attempt_id = given(args[from + 2]),
    attempt = tonumber(args[from + 3]),
  }
end

--- The row of a live lease that this fence holds, or the refusal, with a lapse written down.
function operation.require_fenced(tx, ref, own, keeps_lapse)
  local row = record.find(tx, ref)
  if not row then
    return nil, answer.not_found(ref)
  end
  local now = record.now(tx, row)
  local refusal = fence.check(row, own, now, own.attempt)
  if refusal then
    return nil, keeps_lapse and refusal or lifecycle.refuse_marking(tx, row, refusal, now), row
  end
  return row
end

local RENEWED_EVENT_INTERVAL_MS = 10000

--- Feeds hear of it at most every ten seconds of a lease.
local function extend(tx, row, ttl, now)
  local before = math.floor((row.renewed_at - row.leased_at) / RENEWED_EVENT_INTERVAL_MS)
  row.lease_expires_at = now + ttl
  row.score = row.lease_expires_at
  row.renewed_at = now
  row.renew_by = now + math.floor(ttl * 2 / 3)
  row.mutated_at = now
  if math.floor((now - row.leased_at) / RENEWED_EVENT_INTERVAL_MS) > before then
    log.append_to_feed(tx, row, "renewed", now, "worker", {
      transition = false,
      lease = row.lease,
      holder = row.holder,
      data = { expiresAtMs = row.lease_expires_at },
    })
  end
  record.save(tx, row)
end

--- Arguments: ref, the fence, ttl. @return expires at, epoch
operation.drain("renew", function(tx, args)
  local row, refusal = operation.require_fenced(tx, args[1], operation.read_fence(args, 2))
  if refusal then
    return refusal
  end
  extend(tx, row, tonumber(args[6]), record.now(tx, row))
  return { row.lease_expires_at, row.epoch }
end)

--- By a fence that may be incomplete. Arguments: ref, namespace, lane, the fence, ttl. @return expires at
operation.drain("renew_lease", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local own = operation.read_fence(args, 4)
  local now = record.now(tx, row)
  local refusal = fence.check_triple(own, false) or fence.check(row, own, now, own.attempt)
  if refusal then
    return lifecycle.refuse_marking(tx, row, refusal, now)
  end
  extend(tx, row, tonumber(args[8]), now)
  return { row.lease_expires_at }
end)

--- Takes the lease away. Arguments: ref, namespace, lane, reason, expected lease or nothing, "1" to hold.
--- @return "revoked", lease, epoch; or "alreadySatisfied" and why
operation.drain("revoke_lease", function(tx, args)
  local HOME = state.HOME
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local now = record.now(tx, row)
  if state.phase(row.home) ~= "active" then
    return answer.refuse("execution_not_active", fence.not_active_detail(row))
  end
  if row.home == HOME.revoked then
    return { "alreadySatisfied", "already_revoked" }
  end
  if row.home == HOME.lapsed then
    return { "alreadySatisfied", "already_expired" }
  end
  if args[5] ~= "" and args[5] ~= row.lease then
    return answer.refuse("stale_lease")
  end

  row.home = HOME.revoked
  row.score = now + order.reclaim_backoff_ms(row.reclaims)
  row.reason = state.REASON.waiting_for_worker
  row.attempt_state = state.ATTEMPT.attempt_interrupted
  row.lost_at = now
  row.transitioned_at = now
  row.mutated_at = now
  if args[6] == "1" and row.holds % 2 == 0 then
    row.holds = row.holds + state.HOLD.operator
  end
  side.change_details(row, { revokeReason = args[4] })
  log.append(tx, row, "lease_revoked", now, "operator", { lease = row.lease, holder = row.holder, reason = args[4] })
  record.save(tx, row)
  lifecycle.ring(tx, row)
  return { "revoked", row.lease, row.epoch }
end)
