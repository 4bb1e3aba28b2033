-- The record of an execution: one packed value, its place in one index, its timer. Its columns are packed by position, for
-- reading and writing them by name takes the server ten times as long; a column that is not set costs a byte.

--- Bits of `parts`: what lies beside the record.
record.PART = {
  policy = 1,
  input = 2,
  output = 4,
  history = 8,
  waitpoints = 16,
}

--- Input and result up to this length stay in the record: a key of their own would cost more than rewriting them.
record.SHORT = 128

--- Columns are added at the end, and none changes its meaning or goes: several versions of the library may work on one
--- store. What a newer one has added is in `rest`, and written back.
local function to_row(
  seq,
  route,
  kind,
  created_at,
  home,
  reason,
  attempt_state,
  priority,
  events,
  epoch,
  attempt,
  attempts,
  retries,
  reclaims,
  reclaims_total,
  replays,
  holds,
  parts,
  transitioned_at,
  mutated_at,
  lease,
  attempt_id,
  holder,
  request,
  leased_at,
  lease_expires_at,
  renewed_at,
  renew_by,
  lost_at,
  lost_score,
  blocked_at,
  attempt_type,
  attempt_at,
  started_at,
  completed_at,
  delay_until,
  deadline_at,
  timeout_ms,
  timeout_at,
  timeout_left,
  grant_until,
  max_reclaims,
  keep_ms,
  progress_at,
  input,
  output,
  tags,
  details,
  history,
  ...
)
  return {
    seq = seq,
    route = route,
    kind = kind,
    created_at = created_at,
    home = home,
    reason = reason,
    attempt_state = attempt_state,
    priority = priority,
    events = events,
    epoch = epoch,
    attempt = attempt,
    attempts = attempts,
    retries = retries,
    reclaims = reclaims,
    reclaims_total = reclaims_total,
    replays = replays,
    holds = holds,
    parts = parts,
    transitioned_at = transitioned_at,
    mutated_at = mutated_at,
    lease = lease,
    attempt_id = attempt_id,
    holder = holder,
    request = request,
    leased_at = leased_at,
    lease_expires_at = lease_expires_at,
    renewed_at = renewed_at,
    renew_by = renew_by,
    lost_at = lost_at,
    lost_score = lost_score,
    blocked_at = blocked_at,
    attempt_type = attempt_type,
    attempt_at = attempt_at,
    started_at = started_at,
    completed_at = completed_at,
    delay_until = delay_until,
    deadline_at = deadline_at,
    timeout_ms = timeout_ms,
    timeout_at = timeout_at,
    timeout_left = timeout_left,
    grant_until = grant_until,
    max_reclaims = max_reclaims,
    keep_ms = keep_ms,
    progress_at = progress_at,
    input = input,
    output = output,
    tags = tags,
    details = details,
    history = history,
    rest = { ... },
  }
end

local function pack(row)
  return cmsgpack.pack(
    row.seq,
    row.route,
    row.kind,
    row.created_at,
    row.home,
    row.reason,
    row.attempt_state,
    row.priority,
    row.events,
    row.epoch,
    row.attempt,
    row.attempts,
    row.retries,
    row.reclaims,
    row.reclaims_total,
    row.replays,
    row.holds,
    row.parts,
    row.transitioned_at,
    row.mutated_at,
    row.lease,
    row.attempt_id,
    row.holder,
    row.request,
    row.leased_at,
    row.lease_expires_at,
    row.renewed_at,
    row.renew_by,
    row.lost_at,
    row.lost_score,
    row.blocked_at,
    row.attempt_type,
    row.attempt_at,
    row.started_at,
    row.completed_at,
    row.delay_until,
    row.deadline_at,
    row.timeout_ms,
    row.timeout_at,
    row.timeout_left,
    row.grant_until,
    row.max_reclaims,
    row.keep_ms,
    row.progress_at,
    row.input,
    row.output,
    row.tags,
    row.details,
    row.history,
    unpack(row.rest)
  )
end

--- Score of finished executions whose policy sets its own retention: behind all others, ordered by purge time.
record.OWN_RETENTION_OFFSET = 4000000000000000

--- The columns of a row that leaves the server, by position; packages/valkey/src/rows.ts reads them back.
record.COLUMNS = {
  "route",
  "kind",
  "created_at",
  "home",
  "score",
  "reason",
  "attempt_state",
  "priority",
  "events",
  "epoch",
  "attempt",
  "attempts",
  "retries",
  "reclaims",
  "reclaims_total",
  "replays",
  "holds",
  "transitioned_at",
  "mutated_at",
  "lease",
  "attempt_id",
  "holder",
  "leased_at",
  "lease_expires_at",
  "renewed_at",
  "renew_by",
  "attempt_type",
  "attempt_at",
  "started_at",
  "completed_at",
  "delay_until",
  "deadline_at",
  "timeout_at",
  "progress_at",
  "seq",
}

function record.has_part(row, part)
  return math.floor(row.parts / part) % 2 == 1
end

function record.set_part(row, part, present)
  if record.has_part(row, part) ~= present then
    row.parts = row.parts + (present and part or -part)
  end
end

local function key_of(tx, ref)
  return tx.base .. ":x:" .. ref
end

--- What the index holds: for most homes the record alone decides it.
local function score_of(row)
  local HOME = state.HOME
  local at = row.home
  if at == HOME.eligible then
    return order.sort_key(row.created_at, row.priority)
  end
  if at == HOME.delayed then
    return row.delay_until or 0
  end
  if at == HOME.active then
    return row.lease_expires_at or 0
  end
  if at == HOME.lapsed or at == HOME.revoked then
    return row.lost_score or 0
  end
  if state.is_terminal(at) then
    if row.keep_ms then
      return record.OWN_RETENTION_OFFSET + (row.completed_at or 0) + row.keep_ms
    end
    return row.completed_at or 0
  end
  return row.blocked_at or 0
end

--- Behind everything that time makes due: lost work that is held, which nobody may take and no portion ends.
record.HELD_SCORE = 4000000000000000

--- Where the index has it. As the row's score, but for lost work that does not wait for its back-off: at its cap it is to end
--- at once.
function record.index_score(row)
  if row.home == state.HOME.lapsed or row.home == state.HOME.revoked then
    if row.holds ~= 0 then
      return record.HELD_SCORE
    end
    if lifecycle.is_at_reclaim_cap(row) then
      return row.lost_at
    end
  end
  return row.score
end

local function index_name(tx, route, at)
  local HOME = state.HOME
  local name = at
  -- Nobody takes them from there: one list of all that wait, by when they began.
  if at == HOME.suspended then
    return tx.base .. ":h:suspended"
  end
  if at == HOME.delayed or (at >= HOME.active and at <= HOME.revoked) then
    name = "due"
  elseif state.is_terminal(at) then
    name = "end"
  end
  return tx.base .. ":h:" .. route .. ":" .. name
end

--- The index that a home is kept in. Homes that time alone changes share one, so that a single look tells what is due.
function record.index_of(tx, route, at)
  local of_route = tx.indexes[route]
  if not of_route then
    of_route = {}
    tx.indexes[route] = of_route
  end
  local index = of_route[at]
  if not index then
    index = index_name(tx, route, at)
    of_route[at] = index
  end
  return index
end

--- When its deadline, or the time of its attempt or suspension, is over, whichever comes first; nothing where it has neither.
function record.timer_of(row)
  if state.is_terminal(row.home) then
    return nil
  end
  if row.deadline_at and row.timeout_at then
    return math.min(row.deadline_at, row.timeout_at)
  end
  return row.deadline_at or row.timeout_at
end

local function unpacked(packed)
  return to_row(cmsgpack.unpack(packed))
end

local function corrupt(ref, what)
  error({ err = "FFCORRUPT " .. text.of_ref(ref) .. " " .. what })
end

--- The row, or nothing where there is none. @throws where it cannot be read
function record.find(tx, ref)
  local key = key_of(tx, ref)
  local packed = later.known(tx, key)
  if packed == nil then
    packed = redis.pcall("GET", key)
  end
  if not packed then
    return nil
  end
  local is_readable, row = pcall(unpacked, packed)
  if not is_readable or type(row.home) ~= "number" or type(row.kind) ~= "string" then
    corrupt(ref, "record")
  end
  row.ref, row.key = ref, key
  row.score = score_of(row)
  row.stored_home, row.stored_score, row.stored_timer = row.home, record.index_score(row), record.timer_of(row)
  return row
end

function record.exists(tx, ref)
  return redis.call("EXISTS", key_of(tx, ref)) == 1
end

--- How many events there were, without reading the rest; nothing where there is no such execution.
function record.events_of(tx, ref)
  local packed = redis.call("GET", key_of(tx, ref))
  return packed and select(10, cmsgpack.unpack_limit(packed, 9)) or nil
end

--- The row behind an entry of an index; nothing where it cannot be read. An entry that leads nowhere goes.
function record.find_indexed(tx, index, ref)
  local is_readable, row = pcall(record.find, tx, ref)
  if not is_readable then
    return nil
  end
  if not row then
    redis.call("ZREM", index, ref)
  end
  return row
end

--- Makes a row that does not exist yet out of what is known of it.
function record.create(row)
  row.attempts, row.attempt, row.epoch, row.events = 0, 0, 0, 0
  row.retries, row.reclaims, row.reclaims_total, row.replays = 0, 0, 0, 0
  row.holds, row.parts, row.rest = 0, 0, {}
  return row
end

--- Reads many records at once, for record.find; nothing but a call that puts off its writes remembers them.
function record.expect(tx, refs)
  local keys = {}
  for index, ref in ipairs(refs) do
    keys[index] = key_of(tx, ref)
  end
  later.expect(tx, keys)
end

--- The same for records of which none is likely to be there.
function record.expect_none(tx, refs)
  local keys = {}
  for index, ref in ipairs(refs) do
    keys[index] = key_of(tx, ref)
  end
  later.expect_none(tx, keys)
end

--- The row, for an operation that needs one, or the refusal. `namespace` and `lane` are checked where they are given.
function record.require(tx, ref, namespace, lane)
  local row = record.find(tx, ref)
  if not row then
    return nil, answer.not_found(ref)
  end
  if (namespace and namespace ~= "") or (lane and lane ~= "") then
    local route = routes.find(tx, row.route)
    if namespace and namespace ~= "" and route.namespace ~= namespace then
      return nil, answer.not_found(ref)
    end
    if lane and lane ~= "" and route.lane ~= lane then
      return nil,
        answer.refuse("invalid_input", {
          reason = "lane_mismatch: the execution is on lane '" .. route.lane .. "', not '" .. lane .. "'",
          field = "laneId",
        })
    end
  end
  return row
end

--- Writes the record, and where they have changed its place in the index and its timer.
function record.save(tx, row)
  local HOME = state.HOME
  local at = row.home
  row.lost_score = (at == HOME.lapsed or at == HOME.revoked) and row.score or nil
  local is_blocked = at >= HOME.blocked_dependencies and at <= HOME.blocked_lane
  row.blocked_at = (is_blocked or at == HOME.suspended) and row.score or nil
  local key = row.key or key_of(tx, row.ref)
  if later.waits(tx, key) then
    later.flush(tx)
  end
  later.set(tx, key, pack(row))

  local before = row.stored_home and record.index_of(tx, row.route, row.stored_home)
  local after = record.index_of(tx, row.route, row.home)
  if before and before ~= after then
    later.remove(tx, before, row.ref)
  end
  local score = record.index_score(row)
  if before ~= after or score ~= row.stored_score then
    later.add(tx, after, score, row.ref)
  end
  local timer = record.timer_of(row)
  if timer ~= row.stored_timer then
    if timer then
      later.add(tx, tx.base .. ":t", timer, row.ref)
    else
      later.remove(tx, tx.base .. ":t", row.ref)
    end
  end
  row.stored_home, row.stored_score, row.stored_timer = row.home, score, timer
end

--- Time never runs backwards for one execution: a clock step cannot revive anything.
function record.now(tx, row)
  return math.max(tx.now, row.mutated_at)
end

--- What leaves the server, in the order of COLUMNS, then: ref, tags and details as JSON.
function record.values(tx, row)
  local values = {}
  for position, column in ipairs(record.COLUMNS) do
    values[position] = answer.or_false(row[column])
  end
  values[#values + 1] = row.ref
  values[#values + 1] = answer.or_false(row.tags)
  values[#values + 1] = answer.or_false(row.details)
  return values
end

--- The input's bytes; nothing where it is empty.
function record.input(tx, row)
  if record.has_part(row, record.PART.input) then
    local key = tx.base .. ":i:" .. row.ref
    return later.known(tx, key) or redis.call("GET", key)
  end
  return row.input
end

--- The caller saves the row.
function record.write_output(tx, row, payload)
  if #payload <= record.SHORT then
    record.drop_output(tx, row)
    row.output = payload
  else
    row.output = nil
    redis.call("SET", tx.base .. ":r:" .. row.ref, payload)
    record.set_part(row, record.PART.output, true)
  end
end

function record.output(tx, row)
  if record.has_part(row, record.PART.output) then
    return redis.call("GET", tx.base .. ":r:" .. row.ref)
  end
  return row.output
end

--- The caller saves the row.
function record.drop_output(tx, row)
  row.output = nil
  if record.has_part(row, record.PART.output) then
    redis.call("DEL", tx.base .. ":r:" .. row.ref)
    record.set_part(row, record.PART.output, false)
  end
end
