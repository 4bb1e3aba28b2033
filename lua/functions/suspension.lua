-- Suspending, resuming without a signal, waitpoints, and what can be seen of them.

local OPEN_MAX = 256

--- Ref, namespace, fence, suspension id, then reason, requestedBy, timeoutAtMs and timeoutBehavior as JSON, condition and
--- policy as JSON, "1" and a pointer or two empty ones, idempotency key, then kind, id and key of each waitpoint.
local FIRST_BINDING = 14

local function read_request(args)
  local said = cjson.decode(args[8])
  local request = {
    id = args[7],
    reason = said.reason,
    requested_by = said.requestedBy,
    timeout_at = said.timeoutAtMs,
    behavior = said.timeoutBehavior,
    condition = args[9],
    policy = args[10],
    pointer = args[11] == "1" and args[12] or nil,
    idempotency_key = args[13],
    bindings = {},
  }
  for at = FIRST_BINDING, #args, 3 do
    request.bindings[#request.bindings + 1] = { kind = args[at], id = args[at + 1], key = args[at + 2] }
  end
  return request
end

--- A timeout this far gone by is taken for a mistake; one less far fires at once.
local TIMEOUT_TOLERANCE_MS = 600000

--- Arguments: as read_request says. Allowed at the memory limit: it sets a worker free, and what it adds is bounded by the work
--- that there is.
--- Commands: 1 for the clock, 1 to read, 1 for the secrets, up to 3 for policy and names, 1 for each waitpoint, then 5 to write
--- and 1 more for each waitpoint.
--- @return as suspending.answer
operation.drain("suspend", function(tx, args)
  local own, request = operation.read_fence(args, 3), read_request(args)
  if request.timeout_at and request.timeout_at + TIMEOUT_TOLERANCE_MS < tx.now then
    return answer.refuse("invalid_input", { reason = "timeout_at_in_past", field = "timeoutAtMs" })
  end
  local row, missing = record.require(tx, args[1], args[2])
  if missing then
    return missing
  end
  local now = record.now(tx, row)
  local receipt = suspensions.find_receipt(tx, row, request.id, request.idempotency_key, own, now)
  if receipt then
    return suspending.answer_again(tx, row, receipt, now)
  end
  local refusal = fence.check_triple(own, false) or fence.check(row, own, now)
  if refusal then
    return lifecycle.refuse_marking(tx, row, refusal, now)
  end
  if own.attempt and own.attempt ~= row.attempt then
    return answer.refuse("invalid_lease_for_suspend")
  end

  return suspending.suspend(tx, row, request, now)
end)

--- Arguments: ref, fence, id, key, how long it may be pending. @return its token
operation.write("create_waitpoint", function(tx, args)
  local row, refusal = operation.require_fenced(tx, args[1], operation.read_fence(args, 2), true)
  if refusal then
    return refusal
  end
  local now, id = record.now(tx, row), args[6]
  if waitpoints.find(tx, row, id) then
    return answer.refuse("waitpoint_already_exists")
  end
  if #waitpoints.open_ids(tx, row, now) >= OPEN_MAX then
    return answer.refuse("waitpoint_limit_exceeded", { limit = OPEN_MAX })
  end
  local stored = keystore.read(tx)
  local secret, unsigned = keystore.signing(stored)
  if unsigned then
    return unsigned
  end

  local fresh = { id = id, key = args[7], expires_at = now + tonumber(args[8]) }
  suspending.new_waitpoint(stored, secret, row, fresh, now)
  waitpoints.insert(tx, row, { fresh }, now)
  row.mutated_at = now
  record.save(tx, row)

  return { fresh.token }
end)

local function is_open(waitpoint, now)
  return suspension.waitpoint_state(waitpoint.state, waitpoint.expires_at, now) < suspension.WAITPOINT.closed
end

--- Arguments: ref, namespace, "1" by its worker, fence, the waitpoint, a reason. @return "closed" or "alreadyClosed"
operation.drain("close_waitpoint", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2])
  if missing then
    return missing
  end
  local id, now = args[8], record.now(tx, row)
  local waitpoint = waitpoints.find(tx, row, id)
  if not waitpoint then
    return answer.refuse("waitpoint_not_found", { entity = "waitpoint", waitpointId = text.of_uuid(id) })
  end
  if not is_open(waitpoint, now) then
    return { "alreadyClosed" }
  end
  if args[3] == "1" then
    local own = operation.read_fence(args, 4)
    local refusal = fence.check(row, own, now, own.attempt)
    if refusal then
      return refusal
    end
    if waitpoint.state ~= suspension.WAITPOINT.pending then
      return answer.refuse("waitpoint_not_pending")
    end
  end

  waitpoints.close(tx, row, waitpoint, args[9], now)

  return { "closed" }
end)

--- The signals that counted for the last suspension. Arguments: ref, attempt, "1" where the handle is that of a suspend, from
--- which number on.
--- @return the suspension, signals as signals.contributors has them, the number to go on from or nothing, and where a timeout
--- counts as one when that was; nothing where nothing is to be seen
operation.read("observe_signals", function(tx, args)
  local row, missing = record.require(tx, args[1])
  if missing then
    return missing
  end
  local last = suspensions.find(tx, row)
  if not last then
    return {}
  end
  local has_signals, has_timeout = suspension.observable(last, tonumber(args[2]), args[3] == "1")
  local found, next_number = {}, nil
  if has_signals then
    found, next_number = signals.contributors(tx, row, waitpoints.ids_of(last.ids), tonumber(args[4]))
  end
  return { last.id, found, answer.or_false(next_number), has_timeout and last.closed_at }
end)

--- Arguments: ref, namespace, trigger, delay. @return the home it went to
operation.drain("resume_execution", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2])
  if missing then
    return missing
  end
  local now, trigger = record.now(tx, row), args[3]
  local open = suspensions.find_open(tx, row)
  if not open then
    return answer.refuse("execution_not_suspended")
  end

  suspensions.resume(tx, row, open, { close_reason = "resumed", trigger = trigger }, tonumber(args[4]), now)
  log.append(tx, row, "unblocked", now, trigger == "operator" and "operator" or "engine", { reason = trigger })
  record.save(tx, row)
  lifecycle.ring(tx, row)

  return { row.home }
end)

--- Arguments: ref, namespace, the waitpoint. @return its token, or nothing
operation.read("read_waitpoint_token", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2])
  if missing then
    return missing
  end
  local now = record.now(tx, row)
  local waitpoint = waitpoints.find(tx, row, args[3])
  local shown = waitpoint and is_open(waitpoint, now) and token.shown(keystore.read(tx), row.ref, waitpoint, now)
  return shown and { shown } or {}
end)

--- As lists show it: id, key, state, created, activated and expires at, kid, print where its key still verifies, signals, matched,
--- last signal at, names that count.
local function told(waitpoint, condition, stored, now)
  local names = condition and waitpoint.suspension and conditions.required_names(condition, waitpoint.key)
  return {
    waitpoint.id,
    waitpoint.key,
    waitpoint.state,
    waitpoint.created_at,
    answer.or_false(waitpoint.activated_at),
    answer.or_false(waitpoint.expires_at),
    waitpoint.kid,
    keystore.verifying(stored, waitpoint.kid, now) and waitpoint.print or false,
    waitpoint.signals,
    waitpoint.matched,
    answer.or_false(waitpoint.last_signal_at),
    names or {},
  }
end

--- Arguments: ref, namespace, the id behind which to begin or nothing, how many. @return those that take signals, by id, and 1
--- where there are more
operation.read("list_waitpoints", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2])
  if missing then
    return missing
  end
  local now, limit = record.now(tx, row), tonumber(args[4])
  local ids, more = {}, 0
  for _, id in ipairs(waitpoints.open_ids(tx, row, now)) do
    if args[3] == "" or text.is_before(args[3], id) then
      if #ids == limit then
        more = 1
        break
      end
      ids[#ids + 1] = id
    end
  end
  local open = suspensions.find_open(tx, row)
  local condition = open and suspensions.condition_of(open)
  local stored, entries = keystore.read(tx), {}
  for place, waitpoint in ipairs(waitpoints.find_all(tx, row, ids)) do
    entries[place] = told(waitpoint, condition, stored, now)
  end
  return { entries, more }
end)

local PAGE = 100

--- Where the entries behind a place begin, in the order of score and ref.
local function rank_behind(key, score, ref)
  if tonumber(redis.call("ZSCORE", key, ref) or "") == tonumber(score) then
    return redis.call("ZRANK", key, ref) + 1
  end
  local rank = redis.call("ZCOUNT", key, "-inf", "(" .. score)
  for _, other in ipairs(redis.call("ZRANGE", key, score, score, "BYSCORE")) do
    if text.is_before(ref, other) then
      break
    end
    rank = rank + 1
  end
  return rank
end

--- Suspended executions, by when that began. Arguments: a place, as score and ref or two empty ones, how many, how many may be
--- looked at, a partition or nothing.
--- @return for each its place, when its suspension's time is up, and the reason; up to which place was looked, or nothing at the end
operation.read("list_suspended", function(tx, args)
  local key = record.index_of(tx, 0, state.HOME.suspended)
  local limit, budget, partition = tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
  local rank = args[1] ~= "" and rank_behind(key, args[1], args[2]) or 0
  local found = {}
  while true do
    local page = redis.call("ZRANGE", key, rank, rank + PAGE - 1, "WITHSCORES")
    for at = 1, #page, 2 do
      local ref, score = page[at], tonumber(page[at + 1])
      budget = budget - 1
      if not partition or text.partition_of(ref) == partition then
        local row = record.find(tx, ref)
        local open = row and suspensions.find_open(tx, row)
        if open then
          found[#found + 1] = { score, ref, answer.or_false(open.timeout_at), open.reason }
        end
      end
      if #found == limit or budget == 0 then
        return { found, { score, ref } }
      end
    end
    if #page < 2 * PAGE then
      return { found, false }
    end
    rank = rank + PAGE
  end
end)
