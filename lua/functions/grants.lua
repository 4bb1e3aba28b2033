-- Claiming in two steps: a grant for one worker, then its use. A refusal may leave something behind: the time of a
-- mismatch, or a lapsed grant dropped. Allowed at the memory limit, as all that leads to the end of something.

local function is_eligible(row, now)
  return row.home == state.HOME.eligible or row.home == state.HOME.delayed and row.score <= now
end

--- A repeat of the claim that took this very lease (lost reply).
function operation.is_own_lease(tx, row, lease, worker_id, now)
  return row.home == state.HOME.active
    and row.lease_expires_at > now
    and row.lease == lease
    and holders.name(tx, row.holder):match("^[^\n]*") == worker_id
end

--- What a grant is asked with, as five arguments: worker id, instance id, capabilities (a JSON list), ttl, notes or nothing.
function operation.read_grant_request(args, from)
  return {
    worker_id = args[from],
    instance_id = args[from + 1],
    offered = capabilities.set_of(cjson.decode(args[from + 2])),
    ttl = tonumber(args[from + 3]),
    notes = args[from + 4] ~= "" and args[from + 4] or nil,
  }
end

--- What the worker of a request lacks, joined, with the time of the mismatch written down; nothing where it has all.
function operation.note_mismatch(tx, row, request, now)
  local missing = capabilities.missing(routes.find(tx, row.route).required, request.offered)
  if #missing == 0 then
    return nil
  end
  side.change_details(row, { mismatchAtMs = now })
  record.save(tx, row)
  return table.concat(missing, ",")
end

--- The lease of a claim, as six arguments: worker id, instance id, lease, attempt id or nothing, ttl, when to renew.
function operation.read_taker(tx, args, from)
  return {
    worker_id = args[from],
    holder = holders.ensure(tx, args[from], args[from + 1]),
    lease = args[from + 2],
    attempt_id = args[from + 3],
    ttl = tonumber(args[from + 4]),
    renew_in = tonumber(args[from + 5]),
  }
end

--- Kind and worker must be those of the grant; a lapsed one is dropped on the way.
local function check_grant(tx, row, kind, worker_id, now)
  local grant = grants.read(tx, row)
  if not grant or grant.kind ~= kind or grant.workerId ~= worker_id then
    return answer.refuse("invalid_claim_grant")
  end
  if grant.expiresAtMs > now then
    return nil
  end
  grants.drop(tx, row)
  record.save(tx, row)
  return answer.refuse("claim_grant_expired")
end

--- Grants one eligible execution. Arguments: ref, namespace, lane, those of a grant.
--- @return kind, lane, expires at
operation.drain("issue_claim_grant", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local request = operation.read_grant_request(args, 4)
  local now = record.now(tx, row)
  if not is_eligible(row, now) then
    return answer.refuse("execution_not_eligible")
  end
  if grants.is_live(row, now) then
    return answer.refuse("grant_already_exists", { expiresAtMs = row.grant_until })
  end
  local lacking = operation.note_mismatch(tx, row, request, now)
  if lacking then
    return answer.refuse("capability_mismatch", { missing = lacking })
  end

  lifecycle.promote_if_due(tx, row, now)
  local kind = lifecycle.is_interrupted(row) and "resume" or "claim"
  local expires_at = grants.write(tx, row, kind, request, now)
  record.save(tx, row)
  return { kind, routes.find(tx, row.route).lane, expires_at }
end)

--- Uses a grant of kind claim. Arguments: ref, namespace, lane, those of a lease, this attempt's timeout or nothing, the
--- execution's new deadline or nothing. @return what take.answer_in_full says
operation.drain("claim_execution", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local worker_id, lease, attempt_id = args[4], args[6], args[7]
  local now = record.now(tx, row)
  if operation.is_own_lease(tx, row, lease, worker_id, now) and row.attempt_id == attempt_id then
    return take.answer_in_full(tx, row, "fresh")
  end
  if not is_eligible(row, now) then
    return answer.refuse("execution_not_leaseable")
  end
  if row.attempt_state == state.ATTEMPT.running_attempt then
    return answer.refuse("active_attempt_exists")
  end
  if lifecycle.is_interrupted(row) then
    return answer.refuse("use_claim_resumed_execution")
  end
  local refusal = check_grant(tx, row, "claim", worker_id, now)
  if refusal then
    return refusal
  end

  row.deadline_at = tonumber(args[11]) or row.deadline_at
  local policy_timeout = row.timeout_ms
  row.timeout_ms = tonumber(args[10]) or policy_timeout
  local kind = take.execution(tx, row, operation.read_taker(tx, args, 4))
  -- The timeout was this attempt's own; the next one goes by the policy again.
  row.timeout_ms = policy_timeout
  record.save(tx, row)
  lifecycle.ring(tx, row)
  if args[11] ~= "" then
    session.ring_timer(tx, row.deadline_at - now)
  end
  return take.answer_in_full(tx, row, kind)
end)

--- Uses a grant of kind resume. Arguments: ref, namespace, lane, those of a lease. @return what take.answer_in_full says
operation.drain("claim_resumed_execution", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local worker_id, lease = args[4], args[6]
  local now = record.now(tx, row)
  if operation.is_own_lease(tx, row, lease, worker_id, now) then
    return take.answer_in_full(tx, row, "resumed")
  end
  if not state.is_runnable(row.home) then
    return answer.refuse("execution_not_leaseable")
  end
  if not lifecycle.is_interrupted(row) then
    return answer.refuse("not_a_resumed_execution")
  end
  if not is_eligible(row, now) then
    return answer.refuse("execution_not_leaseable")
  end
  local refusal = check_grant(tx, row, "resume", worker_id, now)
  if refusal then
    return refusal
  end

  local taker = operation.read_taker(tx, args, 4)
  taker.reason = "claim_resumed"
  local kind = take.execution(tx, row, taker)
  lifecycle.ring(tx, row)
  return take.answer_in_full(tx, row, kind)
end)

--- Operators' short cut. Arguments: ref, namespace, lane, those of a lease. @return what take.answer_in_full says
operation.drain("issue_grant_and_claim", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local now = record.now(tx, row)
  if not state.is_runnable(row.home) then
    return answer.refuse("execution_not_eligible")
  end
  if grants.is_live(row, now) then
    return answer.refuse("grant_already_exists", { expiresAtMs = row.grant_until })
  end
  if not is_eligible(row, now) then
    return answer.refuse("execution_not_in_eligible_set")
  end

  local taker = operation.read_taker(tx, args, 4)
  taker.reason = lifecycle.is_interrupted(row) and "issue_grant_and_claim_resumed" or "issue_grant_and_claim"
  local kind = take.execution(tx, row, taker)
  lifecycle.ring(tx, row)
  return take.answer_in_full(tx, row, kind)
end)
