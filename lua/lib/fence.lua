-- Mirrors core/src/rules/fence.ts: no write by a worker that lost its lease. The order of the checks is contractual.

--- P1: is a whole triple there? `fence` holds what was given of lease, epoch and attempt_id.
function fence.check_triple(triple, may_override)
  local given = 0
  if triple then
    for _, part in ipairs({ "lease", "epoch", "attempt_id" }) do
      if triple[part] then
        given = given + 1
      end
    end
  end
  if given == 3 then
    return nil
  end
  if given > 0 then
    return answer.refuse("partial_fence_triple")
  end
  if may_override then
    return nil
  end
  return answer.refuse("fence_required")
end

--- P2: does the triple hold the live lease? Without a triple (override) the identity checks fall away. A refusal with
--- `mark_lapsed` says that the lease has lapsed and nobody has written that yet.
function fence.check(row, triple, now, attempt)
  local HOME = state.HOME
  if state.phase(row.home) ~= "active" then
    return answer.refuse("execution_not_active", fence.not_active_detail(row))
  end
  if row.home == HOME.revoked then
    return answer.refuse("lease_revoked")
  end
  if row.home == HOME.lapsed then
    return answer.refuse("lease_expired")
  end
  if (row.lease_expires_at or 0) <= now then
    local refusal = answer.refuse("lease_expired")
    refusal.mark_lapsed = true
    return refusal
  end
  if not triple or not triple.lease then
    return nil
  end
  local same = (not attempt or attempt == row.attempt)
    and triple.lease == row.lease
    and triple.epoch == row.epoch
    and triple.attempt_id == row.attempt_id
  if same then
    return nil
  end
  return answer.refuse("stale_lease")
end

function fence.not_active_detail(row)
  return {
    terminalOutcome = state.outcome(row.home),
    leaseEpoch = row.epoch,
    lifecyclePhase = state.phase(row.home),
    attemptId = row.attempt_id and text.of_uuid(row.attempt_id) or "",
  }
end
