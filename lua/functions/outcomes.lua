-- Ending or handing back an attempt. A repeat whose first reply got lost is recognised and answered as that success.

--- The result goes in first: a reader may look as soon as the state says completed.
local function complete(tx, row, payload, now)
  if payload then
    record.write_output(tx, row, payload)
  end
  side.change_details(row, {}, { "failureReason", "failureCategory" })
  lifecycle.enter_terminal(tx, row, "success", now, { actor = "worker" })
  record.save(tx, row)
  lifecycle.ring(tx, row)
end

local function complete_own(tx, ref, own, payload)
  local row, refusal = operation.require_fenced(tx, ref, own)
  if refusal then
    return repeats.ended_by_us(refusal, own, "success") and { "completed" } or refusal
  end
  complete(tx, row, payload, record.now(tx, row))
  return { "completed" }
end

local function fail_own(tx, ref, own, failed)
  local row, refusal, found = operation.require_fenced(tx, ref, own)
  if refusal then
    if repeats.ended_by_us(refusal, own, "failed") then
      return { "terminalFailed" }
    end
    if found and repeats.retry_scheduled_by_us(refusal, own, found.attempt_state) then
      return { "retryScheduled", found.delay_until or 0 }
    end
    return refusal
  end
  local delay_until = failure.fail_attempt(tx, row, failed, record.now(tx, row))
  return delay_until and { "retryScheduled", delay_until } or { "terminalFailed" }
end

--- How many arguments an item of a batch has: "c" or "f", ref, the fence, then for a completion "1" and the payload, or two
--- empty ones; for a failure message and category; then class and a random number, or two empty ones.
local ITEM_ARGS = 10

local function outcome_of(tx, args, from)
  local ref, own = args[from + 1], operation.read_fence(args, from + 2)
  if args[from] == "c" then
    return complete_own(tx, ref, own, args[from + 6] == "1" and args[from + 7] or nil)
  end
  return fail_own(tx, ref, own, {
    message = args[from + 6],
    category = args[from + 7],
    classification = args[from + 8],
    random = tonumber(args[from + 9]),
    actor = "worker",
  })
end

--- Arguments: one item. Commands: 1 for the clock, 1 to read, 4 or 5 to write.
operation.drain("end", function(tx, args)
  return outcome_of(tx, args, 1)
end)

--- Outcomes of many attempts, then the claim of the next ones. Arguments: how many, the items, then those of a claim or
--- none. Commands: those of a claim; 1 to read all that ends, 1 for each event, 1 to write them and 1 for each index.
--- @return the results; with a claim also routes, next due in, the claims
operation.drain("end_and_claim", function(tx, args)
  local count = tonumber(args[1])
  local from = 2 + count * ITEM_ARGS
  local claim = args[from] and operation.read_claim(args, from)
  if claim and numbers.are_stale(tx, claim.marks) then
    return answer.STALE
  end
  later.begin(tx)
  local refs = {}
  for index = 1, count do
    refs[index] = args[3 + (index - 1) * ITEM_ARGS]
  end
  record.expect(tx, refs)
  local results, retried = {}, {}
  for index = 1, count do
    local item = 2 + (index - 1) * ITEM_ARGS
    local result = outcome_of(tx, args, item)
    if result[1] == "retryScheduled" then
      retried[args[item + 1]] = true
    end
    results[index] = answer.item(result)
    later.flush_if_many(tx)
  end
  if not claim then
    return { results }
  end
  -- What this very call scheduled for a retry is passed over, however soon it may start.
  local claimed, due_in = operation.claim(tx, claim, retried)
  return { results, routes.count(tx), due_in, claimed }
end)

--- Hands the attempt back. Arguments: ref, the fence, until when. @return until when
operation.drain("delay", function(tx, args)
  local own, delay_until = operation.read_fence(args, 2), tonumber(args[6])
  local row, refusal, found = operation.require_fenced(tx, args[1], own)
  if refusal then
    -- A lease may also have ended by suspending, which leaves the same traces once it is resumed.
    local is_parked = found and lifecycle.is_interrupted(found) and repeats.parked_by_us(refusal, own)
    if is_parked and not suspensions.ended_lease(tx, found, own.epoch) then
      return { found.delay_until or delay_until }
    end
    return refusal
  end
  local now = record.now(tx, row)
  lifecycle.pause_timeout(row, now)
  lifecycle.release_lease(tx, row)
  row.attempt_state = state.ATTEMPT.attempt_interrupted
  row.delay_until = delay_until
  lifecycle.place_runnable(row, now, state.REASON.waiting_for_delay)
  log.append(tx, row, "delayed", now, "worker", { data = { delayUntilMs = delay_until } })
  record.save(tx, row)
  lifecycle.ring(tx, row)
  return { delay_until }
end)

local PROGRESS_EVENT_INTERVAL_MS = 1000

--- Arguments: ref, the fence, percent or nothing, "1" and a message or two empty ones.
operation.drain("progress", function(tx, args)
  local row, refusal = operation.require_fenced(tx, args[1], operation.read_fence(args, 2), true)
  if refusal then
    return refusal
  end
  local now = record.now(tx, row)
  local percent, message = tonumber(args[6]), args[7] == "1" and args[8] or nil
  local logged_at = row.progress_at and tonumber(side.get(tx, row, "logged_at") or "")
  local is_news = not logged_at or now - logged_at >= PROGRESS_EVENT_INTERVAL_MS
  side.set(tx, row, "logged_at", text.of_number(is_news and now or logged_at))
  if percent then
    side.set(tx, row, "percent", percent)
  end
  if message then
    side.set(tx, row, "message", message)
  end
  row.progress_at = now
  row.mutated_at = now
  if is_news then
    log.append(tx, row, "progress", now, "worker", {
      transition = false,
      data = { percent = percent, message = message },
    })
  end
  record.save(tx, row)
  session.news(tx)
end)

--- By fence triple; an operator may waive it, but not the state of the lease.
local function require_by_triple(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return nil, missing
  end
  local own = operation.read_fence(args, 4)
  local now = record.now(tx, row)
  local refusal = fence.check_triple(own, args[8] == "operator_override") or fence.check(row, own, now)
  if refusal then
    return nil, lifecycle.refuse_marking(tx, row, refusal, now)
  end
  return row
end

--- Arguments: ref, namespace, lane, the fence, source, "1" and a result or two empty ones.
operation.drain("complete_execution", function(tx, args)
  local row, refusal = require_by_triple(tx, args)
  if refusal then
    return refusal
  end
  complete(tx, row, args[9] == "1" and args[10] or nil, record.now(tx, row))
end)

--- Arguments: ref, namespace, lane, the fence, source, message, category, class, a random number.
--- @return "terminalFailed", or "retryScheduled", when, the next attempt's index
operation.drain("fail_execution", function(tx, args)
  local row, refusal = require_by_triple(tx, args)
  if refusal then
    return refusal
  end
  local failed = {
    message = args[9],
    category = args[10],
    classification = args[11],
    random = tonumber(args[12]),
    actor = "worker",
  }
  local delay_until = failure.fail_attempt(tx, row, failed, record.now(tx, row))
  if not delay_until then
    return { "terminalFailed" }
  end
  return { "retryScheduled", delay_until, row.attempts }
end)

--- The holder ends the execution as cancelled. Arguments: ref, the fence, reason.
operation.drain("cancel_own", function(tx, args)
  local own = operation.read_fence(args, 2)
  local refusal = operation.cancel(tx, {
    ref = args[1],
    source = "lease_holder",
    fence = own,
    reason = args[6],
  })
  if refusal and not repeats.ended_by_us(refusal, own, "cancelled") then
    return refusal
  end
end)
