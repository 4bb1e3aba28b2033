-- Turning one candidate into a lease: fresh, resumed or taken over, whatever its state asks for.

--- Takes the execution for a worker and saves it. `taker`: holder, ttl, renew_in, request, reason, lease, attempt_id.
--- @return `fresh`, `resumed` or `reclaimed`; nothing where a lost one must wait for its back-off, and what was found out is
--- then saved all the same
function take.execution(tx, row, taker)
  local HOME = state.HOME
  local now = record.now(tx, row)
  lifecycle.promote_if_due(tx, row, now)
  if lifecycle.mark_lapsed_if_due(tx, row, now) and row.score > now then
    record.save(tx, row)
    return nil
  end

  local lost = row.home == HOME.lapsed or row.home == HOME.revoked
  local kind = lost and "reclaimed" or lifecycle.is_interrupted(row) and "resumed" or "fresh"
  grants.drop(tx, row)

  if kind == "reclaimed" then
    local loss = row.home == HOME.revoked and "lease_revoked" or "lease_expired"
    lifecycle.archive_attempt(tx, row, now, {
      state = "interrupted_reclaimed",
      failureReason = loss,
      closes = "reclaimed",
    })
    side.change_details(row, { nextReason = loss, nextPrevious = row.attempt }, { "nextRequestedBy", "revokeReason" })
    row.reclaims = row.reclaims + 1
    row.reclaims_total = row.reclaims_total + 1
  end
  if kind == "resumed" then
    lifecycle.resume_attempt(row, now)
  else
    local attempt_type = kind == "reclaimed" and "reclaim" or lifecycle.next_attempt_type(row)
    lifecycle.begin_attempt(tx, row, taker.attempt_id, attempt_type, now)
  end

  lifecycle.acquire_lease(row, taker, now)
  log.append(tx, row, kind == "fresh" and "claimed" or kind, now, "worker", {
    lease = row.lease,
    holder = row.holder,
    attempt_id = row.attempt_id,
    reason = taker.reason,
  })
  record.save(tx, row)
  if row.timeout_at then
    session.ring_timer(tx, row.timeout_at - now)
  end
  return kind
end

--- What a claim answers, from the stored lease: { kind, ref, route, kind of work, attempt, attempt_id, attempt_type, lease,
--- epoch, holder, expires at, ttl, tags, input }. Also the answer to a repeat; then `kind` is told from the row.
function take.answer(tx, row, kind)
  if not kind then
    kind = "fresh"
    if row.attempt_at ~= row.leased_at then
      kind = "resumed"
    elseif row.attempt_type == state.ATTEMPT_TYPE.reclaim then
      kind = "reclaimed"
    end
  end
  return {
    kind,
    row.ref,
    row.route,
    row.kind,
    row.attempt,
    row.attempt_id,
    row.attempt_type or 0,
    row.lease,
    row.epoch,
    row.holder,
    row.lease_expires_at,
    row.lease_expires_at - row.renewed_at,
    answer.or_false(row.tags),
    answer.or_false(record.input(tx, row)),
  }
end

--- The same with the names of route and holder, for callers that sent no numbers and so cannot know whether theirs are right.
function take.answer_in_full(tx, row, kind)
  local full = take.answer(tx, row, kind)
  full[3] = routes.find(tx, row.route).lane
  full[10] = holders.name(tx, row.holder)
  return full
end
