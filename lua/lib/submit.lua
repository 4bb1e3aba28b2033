-- Writing a new execution.

local function key_name(tx, namespace, lane, key)
  return tx.base .. ":k:" .. namespace .. "\n" .. lane .. "\n" .. key
end

--- What the caller compares a repeat with: { ref, namespace, lane, kind, policy, fingerprint, input }.
function submit.earlier(tx, row)
  local route = routes.find(tx, row.route)
  local said = redis.call("HMGET", tx.base .. ":d:" .. row.ref, "policy", "print")
  return {
    "duplicate",
    row.ref,
    route.namespace,
    route.lane,
    row.kind,
    said[1],
    said[2],
    answer.or_false(record.input(tx, row)),
  }
end

--- A key leads to a ref, kept with the instant until which it does. A submission whose id lies in another cell than its key
--- holds the key first, with a "p" in front and for a short time, then writes, then keeps it.
local function read_key(tx, namespace, lane, key)
  local found = redis.call("GET", key_name(tx, namespace, lane, key))
  if not found then
    return nil
  end
  local is_held = found:sub(1, 1) == "p"
  local until_ms = tonumber(found:sub(is_held and 2 or 1, -19))
  if until_ms <= tx.now then
    return nil
  end
  return found:sub(-18), is_held
end

--- Whether an execution lies in this cell, of so many.
local function is_here(tx, ref, cells)
  return not cells or text.partition_of(ref) % cells == tonumber(tx.base:match("{(%d+)}$"))
end

--- What a living key leads to: a row of this cell; else, where the key may lead out of it, a ref and whether it is only held.
--- `request.dead` is a ref of which the caller knows that nothing lies there.
local function find_by_key(tx, request)
  local ref, is_held = read_key(tx, request.ns, request.lane, request.key)
  if not ref or request.dead and text.hex(ref) == request.dead then
    return nil
  end
  if is_here(tx, ref, request.cells) then
    return record.find(tx, ref)
  end
  return nil, ref, is_held
end

--- Keys are collected by the server some time after they have lapsed; whether one lives is decided by its own instant.
local KEY_SLACK_MS = 60000

local function remember_key(tx, namespace, lane, key, ref, window)
  local value = text.of_number(tx.now + window) .. ref
  redis.call("SET", key_name(tx, namespace, lane, key), value, "PX", text.of_number(window + KEY_SLACK_MS))
end

local HELD_MS = 10000
--- Before it lapses, so that clocks of two nodes may differ.
local HELD_MARGIN_MS = 5000

--- Holds a key for an execution of another cell. @return { "held", until when it may be written } or { "duplicate", … } or
--- { "elsewhere", ref, 1 where it is only held }
function submit.hold_key(tx, ref, request)
  local row, other, is_held = find_by_key(tx, request)
  if row then
    return submit.earlier(tx, row)
  end
  if other and other ~= ref then
    return { "elsewhere", other, is_held and 1 or 0 }
  end
  local until_ms = tx.now + HELD_MS
  local name = key_name(tx, request.ns, request.lane, request.key)
  redis.call("SET", name, "p" .. text.of_number(until_ms) .. ref, "PX", HELD_MS + KEY_SLACK_MS)
  return { "held", until_ms - HELD_MARGIN_MS }
end

--- What was held leads there from now on, or with no window to nothing any more. Of another's key nothing is changed.
function submit.keep_key(tx, ref, request)
  local found = redis.call("GET", key_name(tx, request.ns, request.lane, request.key))
  if not found or found:sub(1, 1) ~= "p" or found:sub(-18) ~= ref then
    return
  end
  if request.window and request.window > 0 then
    remember_key(tx, request.ns, request.lane, request.key, ref, request.window)
  else
    redis.call("DEL", key_name(tx, request.ns, request.lane, request.key))
  end
end

function submit.forget_key(tx, namespace, lane, key, ref)
  local name = key_name(tx, namespace, lane, key)
  local found = redis.call("GET", name)
  if found and found:sub(-18) == ref then
    redis.call("DEL", name)
  end
end

--- Beyond this a clock is wrong; there is room to count on, for numbers are exact up to 2^53.
local SEQ_BY_CLOCK_MAX = 8000000000000000

--- Its place in the order of creation: the microseconds of the clock, so that the orders of several cells can be put into
--- one, or one more than the last.
local function next_seq(tx)
  local last = tx.seq or tonumber(redis.call("HGET", tx.base, "seq") or 0)
  tx.seq = math.max(last + 1, math.min(tx.now * 1000 + tx.micros, SEQ_BY_CLOCK_MAX))
  later.count(tx, "seq", tx.seq)
  return tx.seq
end

--- The row that its key, or its id, leads to; else a ref of another cell and whether its key is only held.
function submit.find_earlier(tx, ref, request)
  if request.key and not request.heldUntil then
    local row, other, is_held = find_by_key(tx, request)
    if row or other then
      return row, other, is_held
    end
  end
  return record.find(tx, ref)
end

--- One submission. `request`, decoded from JSON: ns, lane, kind; where given: key, window, req (required tokens, joined),
--- prio, delay, deadline or deadlineIn, timeout, maxReclaims, maxReplays, maxSignals, keep, tags (an object), policy and print
--- (texts), retry and suspension (JSON), creator; `refused` where the policy is wrong, so that only an earlier execution is looked for; cells, how many there are,
--- where keys may lead to others; heldUntil where the key is held in another cell, and for how long.
--- @return { "created", home, 1 where it made a route }, { "duplicate", … }, { "refused" }, { "elsewhere", ref, 1 where its key
--- is only held }, { "late" }
function submit.one(tx, ref, request, payload)
  local HOME, REASON, PART = state.HOME, state.REASON, record.PART
  local now = tx.now
  local earlier, other, is_held = submit.find_earlier(tx, ref, request)
  if earlier then
    return submit.earlier(tx, earlier)
  end
  if other then
    return { "elsewhere", other, is_held and 1 or 0 }
  end
  if request.heldUntil and now > request.heldUntil then
    return { "late" }
  end
  if request.refused then
    return { "refused" }
  end

  local delayed = request.delay and request.delay > now
  local deadline_at = request.deadline or request.deadlineIn and now + request.deadlineIn or nil
  local row = record.create({
    ref = ref,
    seq = next_seq(tx),
    route = routes.ensure(tx, request.ns, request.lane, request.req or ""),
    kind = request.kind,
    created_at = now,
    home = delayed and HOME.delayed or HOME.eligible,
    score = delayed and request.delay or order.sort_key(now, request.prio or 0),
    reason = delayed and REASON.waiting_for_delay or REASON.waiting_for_worker,
    attempt_state = state.ATTEMPT.pending_first_attempt,
    priority = request.prio or 0,
    transitioned_at = now,
    mutated_at = now,
    delay_until = delayed and request.delay or nil,
    deadline_at = deadline_at,
    timeout_ms = request.timeout,
    max_reclaims = request.maxReclaims,
    keep_ms = request.keep,
  })
  if #payload > record.SHORT then
    later.set(tx, tx.base .. ":i:" .. ref, payload)
    record.set_part(row, PART.input, true)
  elseif #payload > 0 then
    row.input = payload
  end
  local beside = {}
  local function keep(field, value)
    if value then
      beside[#beside + 1] = field
      beside[#beside + 1] = value
    end
  end
  keep("policy", request.policy)
  keep("retry", request.retry)
  keep("replays", request.maxReplays)
  keep("print", request.print)
  keep("suspension", request.suspension)
  keep("signals", request.maxSignals)
  keep("creator", request.creator)
  keep("key", request.key)
  if request.retry then
    record.set_part(row, PART.policy, true)
  end
  if request.tags then
    row.tags = text.encode(request.tags)
  end
  if #beside > 0 then
    redis.call("HSET", tx.base .. ":d:" .. ref, unpack(beside))
  end
  for tag, value in pairs(request.tags or {}) do
    tags.index(tx, row, tag, value)
  end
  if request.key and not request.heldUntil and request.window and request.window > 0 then
    remember_key(tx, request.ns, request.lane, request.key, ref, request.window)
  end
  later.add(tx, tx.base .. ":all", row.seq, ref)
  log.append(tx, row, "created", now, "client", { attempt = false })
  record.save(tx, row)

  if deadline_at then
    session.ring_timer(tx, deadline_at - now)
  end
  -- A delayed one is no work yet, but a parked claim must learn when it will be.
  session.ring(tx, row.route, delayed and request.delay - now or 0)
  return { "created", row.home, tx.has_new_route and 1 or 0 }
end
