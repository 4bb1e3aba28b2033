-- Behind the library: one function that asks one rule, with its arguments and its answer as JSON. See rules.test.ts.

local RULES = {}

local function bytes_of(uuid)
  if not uuid or #uuid ~= 36 then
    return uuid
  end
  return (uuid:gsub("-", ""):gsub("..", function(hex)
    return string.char(tonumber(hex, 16))
  end))
end

local function name_of(numbers, number)
  for name, known in pairs(numbers) do
    if known == number then
      return name
    end
  end
  return nil
end

local function triple_of(given)
  return given
    and {
      lease = bytes_of(given.leaseId),
      epoch = given.leaseEpoch,
      attempt_id = bytes_of(given.attemptId),
    }
end

local function refusal_of(refusal)
  if not refusal then
    return {}
  end
  return { refused = refusal.refused, detail = refusal.detail, markLapsed = refusal.mark_lapsed }
end

function RULES.triple(given)
  return refusal_of(fence.check_triple(triple_of(given.fence), given.mayOverride))
end

local function row_of(stored)
  return {
    home = state.HOME[stored.home],
    epoch = stored.leaseEpoch,
    lease = bytes_of(stored.leaseId),
    attempt_id = bytes_of(stored.attemptId),
    attempt = stored.attemptIndex,
    lease_expires_at = stored.leaseExpiresAtMs,
  }
end

function RULES.fence(given)
  return refusal_of(fence.check(row_of(given.record), triple_of(given.fence), given.nowMs, given.attemptIndex))
end

function RULES.next_frame_id(given)
  local last = given.last or {}
  local ms, n = frames.next_id(last.ms, last.n, given.nowMs)
  return { ms = ms, n = n }
end

function RULES.size_best_effort(given)
  local mode = given.mode
  local rate, kept = frames.size_best_effort(given.rateHz, given.atMs, {
    ttl = mode.ttlMs,
    floor = mode.maxlenFloor,
    ceiling = mode.maxlenCeiling,
    alpha = mode.emaAlpha,
  }, given.nowMs)
  return { rateHz = ("%.17g"):format(rate), kept = kept }
end

function RULES.caller_seq(given)
  local verdict = frames.check_caller_seq(given.last, given.first, given.final)
  return { verdict = verdict.refused or verdict, detail = verdict.detail }
end

function RULES.may_append(given)
  local own = triple_of(given.own)
  own.attempt = given.own.attemptIndex
  return refusal_of(frames.check_append(row_of(given.record), own, given.nowMs))
end

function RULES.admit(given)
  local retained, excess = given.retained, 0
  for _ = 1, given.frames do
    local left, gone = frames.admit(retained, given.kept)
    retained, excess = left, excess + gone
  end
  return { retainedAfter = retained, excess = excess }
end

function RULES.is_visible(given)
  return { visible = frames.is_visible(given.atMs, given.ttlMs, given.nowMs) }
end

function RULES.end_of_attempt(given)
  local attempt = given.attempt
  return closing.end_of_attempt({
    home = state.HOME[attempt.home],
    lease_expires_at = attempt.leaseExpiresAtMs,
    lost_at = attempt.lostAtMs,
    completed_at = attempt.completedAtMs,
  }, attempt.ended or {}, given.nowMs) or {}
end

function RULES.end_attempt(given)
  return closing.end_attempt(given.earlier, given.reason, given.nowMs)
end

function RULES.archive(given)
  local archived = { state = given.state, endedAtMs = given.endedAtMs }
  closing.archive(archived, given["end"])
  local told = closing.end_of_archived(archived)
  archived.state, archived.endedAtMs = nil, nil
  return { kept = archived, told = told }
end

function RULES.backoff(given)
  return { delayMs = retry.backoff_ms(given.backoff, given.retryCount, given.random) }
end

function RULES.retry(given)
  local failed = given.failed
  local at = retry.at(given.retryPolicy, {
    classification = failed.classification,
    category = failed.category,
    retries = failed.retryCount,
    now = failed.nowMs,
    deadline_at = failed.deadlineAtMs,
  }, 0)
  return { startAtMs = at }
end

function RULES.sort_key(given)
  return { key = order.sort_key(given.createdAtMs, given.priority) }
end

function RULES.reclaim_backoff(given)
  return { delayMs = order.reclaim_backoff_ms(given.reclaims) }
end

function RULES.reclaim_cap(given)
  return { reached = reclaim.at_cap(given.reclaims, given.policyCap, given.callCap) }
end

function RULES.enter_runnable(given)
  local facts = given.facts
  local row = {
    created_at = facts.createdAtMs,
    priority = facts.priority,
    holds = (facts.operatorHold and state.HOLD.operator or 0) + (facts.laneHold and state.HOLD.lane or 0),
    dependencies_open = facts.dependenciesOpen,
    delay_until = facts.delayUntilMs,
  }
  local at, score, reason = home.enter_runnable(row, state.REASON[given.delayReason], given.nowMs)
  return { home = at, score = score, reason = name_of(state.REASON, reason) }
end

function RULES.effective(given)
  return { effective = home.at({ home = given.home, score = given.dueAtMs, mutated_at = 0 }, given.nowMs) }
end

function RULES.missing(given)
  local missing = capabilities.missing(given.required, capabilities.set_of(given.offered))
  return { missing = table.concat(missing, ",") }
end

function RULES.coverage(given)
  local live = {}
  for index, worker in ipairs(given.live) do
    live[index] = {
      lanes = capabilities.set_of(worker.lanes),
      capabilities = capabilities.set_of(worker.capabilities),
    }
  end
  return { verdict = capabilities.coverage(given.required, given.laneId, live) }
end

function RULES.state(given)
  local at = state.HOME[given.name]
  return {
    home = at,
    packed = state.pack({
      home = at,
      reason = state.REASON[given.reason],
      attempt_state = state.ATTEMPT[given.attemptState],
    }),
    lifecyclePhase = state.phase(at),
    terminalOutcome = state.outcome(at),
    isTerminal = state.is_terminal(at),
    isRunnable = state.is_runnable(at),
  }
end

local function repeat_of(given)
  return { refused = given.code, detail = given.detail }, {
    epoch = given.own.leaseEpoch,
    attempt_id = bytes_of(given.own.attemptId),
  }
end

function RULES.ended(given)
  local refusal, own = repeat_of(given)
  return { ours = repeats.ended_by_us(refusal, own, given.outcome) }
end

function RULES.retry_scheduled(given)
  local refusal, own = repeat_of(given)
  return { ours = repeats.retry_scheduled_by_us(refusal, own, state.ATTEMPT[given.attemptState]) }
end

function RULES.parked(given)
  local refusal, own = repeat_of(given)
  return { ours = repeats.parked_by_us(refusal, own) }
end

local function keystore_of(given)
  local stored = { current = given.currentKid, secrets = {} }
  for _, secret in ipairs(given.secrets) do
    stored.secrets[secret.kid] = { hex = secret.secretHex, expires_at = secret.expiresAtMs }
  end
  return stored
end

function RULES.mint(given)
  local subject = given.subject
  local secret, refusal = keystore.signing(keystore_of(given.keystore))
  if refusal then
    return refusal_of(refusal)
  end
  local kid = given.keystore.currentKid
  local digest = token.digest(secret, kid, subject.executionId, {
    id = bytes_of(subject.waitpointId),
    created_at = subject.createdAtMs,
    key = subject.waitpointKey,
  })
  return { token = token.of_digest(kid, digest) }
end

function RULES.validate(given)
  local found, kid, digest = given.found, given.token:match("^([^:]*):(.*)$")
  return refusal_of(
    token.refusal(
      keystore_of(given.keystore),
      { kid = kid, digest = digest },
      given.claimed.executionId,
      bytes_of(given.claimed.waitpointId),
      found and { created_at = found.createdAtMs, key = found.waitpointKey },
      given.nowMs
    )
  )
end

local function plan_of(plan)
  if plan.refused then
    return { kind = "refused", code = plan.refused, kid = plan.detail.kid }
  end
  if plan.removed then
    table.sort(plan.removed)
  end
  return {
    kind = plan.kind,
    sameSecret = plan.same_secret,
    repair = plan.repair,
    removedKids = plan.removed,
    previousKid = plan.previous,
    previousExpiresAtMs = plan.previous_expires_at,
  }
end

function RULES.seed(given)
  return plan_of(keystore.plan_seed(keystore_of(given.keystore), given.kid, given.secretHex))
end

function RULES.rotate(given)
  local stored = keystore_of(given.keystore)
  return plan_of(keystore.plan_rotation(stored, given.newKid, given.newSecretHex, given.graceMs, given.nowMs))
end

function RULES.kids(given)
  local verifying = {}
  for place, each in ipairs(keystore.verifying_kids(keystore_of(given.keystore), given.nowMs)) do
    verifying[place] = { kid = each[1], expiresAtMs = each[2] }
  end
  return { currentKid = given.keystore.currentKid, verifying = verifying }
end

--- Signal by signal, with the sources that a store would remember. Core numbers leaves from 0.
function RULES.evaluate(given)
  local condition = conditions.of(given.condition)
  local progress, sources, steps = conditions.initial(condition), {}, {}
  local initial = { unpack(progress) }
  for place, step in ipairs(given.steps) do
    local match = conditions.match(condition, step.waitpointKey, step.signalName)
    local known = {}
    for _, leaf in ipairs(match.sources) do
      local name = cjson.encode({ leaf, step.source })
      known[leaf] = sources[name]
      sources[name] = true
    end
    local effect, counted = conditions.advance(condition, progress, match, step.waitpointKey, known)
    for index, leaf in ipairs(counted) do
      counted[index] = leaf - 1
    end
    steps[place] = {
      effect = effect,
      counted = counted,
      progress = { unpack(progress) },
      satisfied = conditions.is_satisfied(condition, progress),
      matched = conditions.is_match(effect),
    }
  end
  local required = {}
  for key in pairs(given.requiredSignalNames) do
    required[key] = conditions.required_names(condition, key)
  end
  return { initial = initial, steps = steps, requiredSignalNames = required }
end

function RULES.pending_key(given)
  return { fault = conditions.pending_key_fault(conditions.of(given.condition), given.waitpointKey) }
end

function RULES.blocking_reason(given)
  return { reason = name_of(state.REASON, suspension.blocking_reason(given.reason)) }
end

function RULES.replay(given)
  return { ms = suspension.replay_ms(given.timeoutAtMs, given.nowMs) }
end

function RULES.resume_delay(given)
  return { ms = suspension.resume_delay(given.policy, given.sender) }
end

function RULES.timeout(given)
  local effect = suspension.timeout_effect(given.behavior)
  return {
    kind = effect.kind,
    outcome = effect.outcome,
    closeReason = effect.close_reason,
    failureReason = effect.failure_reason,
  }
end

function RULES.waitpoint_state(given)
  local WAITPOINT = suspension.WAITPOINT
  return { at = name_of(WAITPOINT, suspension.waitpoint_state(WAITPOINT[given.state], given.expiresAtMs, given.nowMs)) }
end

function RULES.signal_limit(given)
  return { limit = suspension.signal_limit(given.policy, given.sender) }
end

function RULES.judge(given)
  local target = given.target
  local judged, refusal = suspension.judge_signal({
    terminal = target.terminal,
    waitpoint = suspension.WAITPOINT[target.waitpointState],
    awaited = target.awaited,
    signals = target.signals,
    limit = target.limit,
  })
  return { judged = judged or "!" .. refusal.refused }
end

function RULES.observe(given)
  local last, handle = given.suspension, given.handle
  local has_signals, has_timeout = suspension.observable({
    attempt = last.attemptIndex,
    closed_at = not last.open and 1 or nil,
    trigger = last.trigger,
    behavior = last.timeoutBehavior,
  }, handle.attemptIndex, handle.suspended)
  return { contributors = has_signals, timeoutSignal = has_timeout }
end

--- All numbers that stand for names, and the columns of a row by position.
function RULES.codes()
  local columns = {}
  for position, column in ipairs(record.COLUMNS) do
    columns[column] = position - 1
  end
  return {
    homes = state.HOME,
    events = state.EVENT,
    blockingReasons = state.REASON,
    attemptStates = state.ATTEMPT,
    attemptTypes = state.ATTEMPT_TYPE,
    holds = state.HOLD,
    waitpointStates = suspension.WAITPOINT,
    columns = columns,
  }
end

redis.register_function({
  function_name = VERSION .. "_rule",
  callback = function(_, args)
    return text.encode(RULES[args[1]](cjson.decode(args[2])))
  end,
  flags = { "no-writes" },
})
