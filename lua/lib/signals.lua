-- Signals, numbered in the order of acceptance, and what they do to a condition. They lie in a hash of their execution: by
-- number; "i" and an id, or "k", a waitpoint and an idempotency key, lead to a number; "p" and a number for a long payload; "n"
-- for how many there are. Which source has counted for which leaf stands in another hash, as long as the suspension is open.

--- Arguments of one command.
local AT_ONCE = 500

--- `fields`: names and values in turn.
local function set_all(key, fields)
  for first = 1, #fields, AT_ONCE do
    redis.call("HSET", key, unpack(fields, first, math.min(first + AT_ONCE - 1, #fields)))
  end
end

local function key_of(tx, row)
  return tx.base .. ":q:" .. row.ref
end

local function sources_key(tx, row)
  return tx.base .. ":u:" .. row.ref
end

--- leaves: the numbers of those that it counted for, joined; payload: bytes, or true where they lie beside; is_repeated: whether
--- it was told that it came again.
local COLUMNS = {
  "id",
  "waitpoint",
  "name",
  "category",
  "source_type",
  "source_identity",
  "correlation",
  "encoding",
  "scope",
  "created_at",
  "accepted_at",
  "effect",
  "leaves",
  "payload",
  "is_repeated",
}

local function save(tx, row, number, signal)
  redis.call("HSET", key_of(tx, row), number, packed.write(COLUMNS, signal))
end

--- How many the execution has accepted.
local function count(tx, row)
  return tonumber(redis.call("HGET", key_of(tx, row), "n") or 0)
end

local function name_of_key(waitpoint, idempotency_key)
  return "k" .. waitpoint.id .. idempotency_key
end

--- The same signal by its id, for good; or by its key, while that is remembered. @return it and its number
local function find_earlier(tx, row, waitpoint, signal, now)
  local number = redis.call("HGET", key_of(tx, row), "i" .. signal.id)
  if not number and signal.idempotency_key ~= "" then
    local kept = redis.call("HGET", key_of(tx, row), name_of_key(waitpoint, signal.idempotency_key))
    if kept then
      local known, expires_at = cmsgpack.unpack(kept)
      number = expires_at > now and known
    end
  end
  if not number then
    return nil
  end
  return packed.read(COLUMNS, redis.call("HGET", key_of(tx, row), number)), number
end

local function event_data(id, waitpoint, source_identity, effect)
  return {
    signalId = text.of_uuid(id),
    waitpointId = text.of_uuid(waitpoint.id),
    sourceIdentity = source_identity ~= "" and source_identity or nil,
    effect = effect,
  }
end

--- Told once per signal; the answer is the same each time.
local function note_repeat(tx, row, waitpoint, signal, earlier, number, now)
  if not earlier.is_repeated then
    log.append_to_feed(tx, row, "signal", now, signal.actor, {
      transition = false,
      data = event_data(earlier.id, waitpoint, signal.source_identity, "deduped"),
    })
    earlier.is_repeated = true
    save(tx, row, number, earlier)
  end
  return { "duplicate", earlier.id }
end

--- A source by leaf: type and identity are a pair, never joined.
local function source_field(number, signal)
  return cmsgpack.pack(number, signal.source_type, signal.source_identity)
end

local function known_sources(tx, row, match, signal)
  local known = {}
  for _, number in ipairs(match.sources) do
    known[number] = redis.call("HEXISTS", sources_key(tx, row), source_field(number, signal)) == 1
  end
  return known
end

--- `known`: those of the match whose source had counted before.
local function record_sources(tx, row, match, known, signal)
  for _, number in ipairs(match.sources) do
    if not known[number] then
      redis.call("HSET", sources_key(tx, row), source_field(number, signal), "")
    end
  end
end

function signals.forget_sources(tx, row)
  redis.call("UNLINK", sources_key(tx, row))
end

function signals.forget(tx, row)
  redis.call("UNLINK", key_of(tx, row), sources_key(tx, row))
end

--- Holds the signal against the condition. @return what it did, and the leaves that it counted for
local function evaluate(tx, row, open, waitpoint, signal)
  local condition = suspensions.condition_of(open)
  local progress = suspensions.progress(tx, row)
  local match = conditions.match(condition, waitpoint.key, signal.name)
  local known = known_sources(tx, row, match, signal)
  local effect, counted = conditions.advance(condition, progress, match, waitpoint.key, known)
  if #counted > 0 and effect ~= "resume_condition_satisfied" then
    suspensions.save_progress(tx, row, progress)
    record_sources(tx, row, match, known, signal)
  end
  return effect, counted
end

local SIGNALS_DEFAULT = 10000

local function limit_of(tx, row, sender_limit)
  return suspension.signal_limit(tonumber(side.get(tx, row, "signals") or SIGNALS_DEFAULT), sender_limit)
end

--- Stores it under its number, with its payload and keys.
local function store(tx, row, waitpoint, signal, number, now)
  local key, payload = key_of(tx, row), signal.payload
  if payload and #payload > record.SHORT then
    redis.call("HSET", key, "p" .. number, payload)
    signal.payload = true
  end
  redis.call("HSET", key, number, packed.write(COLUMNS, signal), "i" .. signal.id, number, "n", number)
  if signal.idempotency_key ~= "" and signal.dedup_ttl > 0 then
    local until_ms = math.min(now + signal.dedup_ttl, text.NUMBER_MAX)
    redis.call("HSET", key, name_of_key(waitpoint, signal.idempotency_key), cmsgpack.pack(number, until_ms))
  end
end

--- One signal to one waitpoint, once its sender was found entitled. A signal: its columns, idempotency_key and dedup_ttl,
--- resume_delay and max_signals where given, actor.
--- Commands: at most 12 beside those of a resume.
--- @return "duplicate" and the first one's id, or "accepted" and its effect
function signals.deliver(tx, row, waitpoint, signal, now)
  local earlier, earlier_number = find_earlier(tx, row, waitpoint, signal, now)
  if earlier then
    return note_repeat(tx, row, waitpoint, signal, earlier, earlier_number, now)
  end
  local open = suspensions.find_open(tx, row)
  local accepted = count(tx, row)
  local judged, refusal = suspension.judge_signal({
    terminal = state.is_terminal(row.home),
    waitpoint = suspension.waitpoint_state(waitpoint.state, waitpoint.expires_at, now),
    awaited = open and waitpoint.suspension == open.id,
    signals = accepted,
    limit = limit_of(tx, row, signal.max_signals),
  })
  if refusal then
    return refusal
  end

  -- What only time had changed is written first, so that every store tells the same story.
  lifecycle.promote_if_due(tx, row, now)
  lifecycle.mark_lapsed_if_due(tx, row, now)
  local effect, counted = "buffered_for_pending_waitpoint", {}
  if judged == "evaluate" then
    effect, counted = evaluate(tx, row, open, waitpoint, signal)
  end
  signal.effect = effect
  signal.leaves = #counted > 0 and table.concat(counted, ",") or nil
  signal.waitpoint = waitpoint.id
  signal.accepted_at = now
  signal.created_at = signal.created_at or now
  local number = accepted + 1
  waitpoints.count_signal(waitpoint, number, conditions.is_match(effect), now)
  waitpoints.save(tx, row, waitpoint)
  store(tx, row, waitpoint, signal, number, now)
  local is_resumed = effect == "resume_condition_satisfied"
  if is_resumed then
    local policy = cjson.decode(open.policy)
    local delay = suspension.resume_delay(policy.resumeDelayMs, signal.resume_delay)
    local finish = { close_reason = "resumed", trigger = "signal", closer = signal.id }
    suspensions.resume(tx, row, open, finish, delay, now)
  end
  row.mutated_at = now
  log.append(tx, row, "signal", now, signal.actor, {
    transition = is_resumed,
    reason = signal.name,
    data = event_data(signal.id, waitpoint, signal.source_identity, effect),
  })
  record.save(tx, row)
  lifecycle.ring(tx, row)

  return { "accepted", effect }
end

--- Calls `visit` with each signal from one number to another, and its number.
local function each_between(tx, row, first, last, visit)
  for from = first, last, AT_ONCE do
    local fields = {}
    for number = from, math.min(from + AT_ONCE - 1, last) do
      fields[#fields + 1] = number
    end
    for place, bytes in ipairs(redis.call("HMGET", key_of(tx, row), unpack(fields))) do
      if bytes and visit(packed.read(COLUMNS, bytes), from + place - 1) then
        return
      end
    end
  end
end

--- Counts what a pending waitpoint has got before it becomes part of a suspension, as if it came now, up to the signal that
--- satisfies; those behind it are as if they had come too late. Nothing is written.
--- @return what to write: progress, matched, results (numbers and packed signals in turn), sources, and closer, the id of the one
--- that satisfied
function signals.evaluate_buffered(tx, row, waitpoint, condition)
  local found = { progress = conditions.initial(condition), matched = 0, results = {}, sources = {} }
  each_between(tx, row, waitpoint.first_signal or 1, waitpoint.last_signal or 0, function(signal, number)
    if signal.waitpoint ~= waitpoint.id then
      return false
    end
    local match = conditions.match(condition, waitpoint.key, signal.name)
    local known = {}
    for _, leaf in ipairs(match.sources) do
      local field = source_field(leaf, signal)
      known[leaf] = found.sources[field]
      found.sources[field] = true
    end
    local effect, counted = conditions.advance(condition, found.progress, match, waitpoint.key, known)
    signal.effect = effect
    signal.leaves = #counted > 0 and table.concat(counted, ",") or nil
    found.matched = found.matched + (conditions.is_match(effect) and 1 or 0)
    found.results[#found.results + 1] = number
    found.results[#found.results + 1] = packed.write(COLUMNS, signal)
    found.closer = effect == "resume_condition_satisfied" and signal.id or nil
    return found.closer ~= nil
  end)
  return found
end

--- Writes what became of buffered signals, and where the suspension stays open which sources have counted.
function signals.save_evaluation(tx, row, found)
  set_all(key_of(tx, row), found.results)
  if not found.closer then
    local fields = {}
    for field in pairs(found.sources) do
      fields[#fields + 1] = field
      fields[#fields + 1] = ""
    end
    set_all(sources_key(tx, row), fields)
  end
end

--- What one answer may hold, and how many are looked at for it.
local BYTES_MAX = 1048576
local LOOKED_AT = 2000

--- Those that counted for one of these waitpoints, from a number on, in the order of acceptance. @return them, each { id, name,
--- category, source type, source identity, correlation id, accepted at, payload }, and the number to go on from where there may
--- be more
function signals.contributors(tx, row, ids, from)
  local ours, first, last = {}, math.huge, 0
  for _, waitpoint in ipairs(waitpoints.find_all(tx, row, ids)) do
    if waitpoint.matched > 0 then
      ours[waitpoint.id] = true
      first = math.min(first, waitpoint.first_signal)
      last = math.max(last, waitpoint.last_signal)
    end
  end
  local found, bytes, looked, next_number = {}, 0, 0, nil
  each_between(tx, row, math.max(first, from), last, function(signal, number)
    if bytes >= BYTES_MAX or looked >= LOOKED_AT then
      next_number = number
      return true
    end
    looked = looked + 1
    if ours[signal.waitpoint] and signal.leaves then
      local payload = signal.payload
      if payload == true then
        payload = redis.call("HGET", key_of(tx, row), "p" .. number)
      end
      bytes = bytes + (payload and #payload or 0)
      found[#found + 1] = {
        signal.id,
        signal.name,
        signal.category,
        signal.source_type,
        signal.source_identity,
        signal.correlation,
        signal.accepted_at,
        answer.or_false(payload),
      }
    end
    return false
  end)
  return found, next_number
end
