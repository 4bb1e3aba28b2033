-- Delivering signals. Refused at the memory limit: there may be any number of them, and their senders come again.

local NOTE_INTERVAL_MS = 1000

--- That somebody was refused is noted now and then; nothing else changes.
local function note_refused_token(tx, row, now)
  local noted_at = side.details(row).tokenRefusedAtMs
  if not noted_at or now - noted_at >= NOTE_INTERVAL_MS then
    side.change_details(row, { tokenRefusedAtMs = now })
    record.save(tx, row)
  end
end

--- Arguments: ref, namespace, the waitpoint, kid and digest of its token, then of the signal id, name, category, source
--- type and identity, correlation id, encoding, scope, "1" and a payload or two empty ones, when it was created or nothing,
--- idempotency key, for how long that is remembered, a delay and a limit or nothing.
--- Commands: 1 for the clock, 1 for the secrets, 2 to read, then those of signals.deliver.
--- @return as signals.deliver
operation.write("deliver_signal", function(tx, args)
  local stored = keystore.read(tx)
  -- Nothing is told of execution and waitpoint before the token was found right.
  local row = record.require(tx, args[1], args[2])
  local waitpoint = row and waitpoints.find(tx, row, args[3])
  local now = row and record.now(tx, row) or tx.now
  local given = { kid = args[4], digest = args[5] }
  local refusal = token.refusal(stored, given, text.of_ref(args[1]), args[3], waitpoint, now)
  if refusal then
    if row then
      note_refused_token(tx, row, now)
    end
    return refusal
  end
  return signals.deliver(tx, row, waitpoint, {
    id = args[6],
    name = args[7],
    category = args[8],
    source_type = args[9],
    source_identity = args[10],
    correlation = args[11],
    encoding = args[12],
    scope = args[13],
    payload = args[14] == "1" and args[15] or nil,
    created_at = tonumber(args[16]),
    idempotency_key = args[17],
    dedup_ttl = tonumber(args[18]),
    resume_delay = tonumber(args[19]),
    max_signals = tonumber(args[20]),
    actor = "client",
  }, now)
end)

--- Arguments: ref, namespace, lane or nothing, the waitpoint, signal id, name, what makes a repeat the same, for how long that is
--- remembered, a limit or nothing. @return as signals.deliver
operation.write("deliver_approval", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local id, name = args[4], args[6]
  local waitpoint = waitpoints.find(tx, row, id)
  if not waitpoint then
    return answer.refuse("waitpoint_not_found", { entity = "waitpoint", waitpointId = text.of_uuid(id) })
  end
  return signals.deliver(tx, row, waitpoint, {
    id = args[5],
    name = name,
    category = "approval",
    source_type = "operator",
    source_identity = "",
    correlation = "",
    encoding = "json",
    scope = "execution",
    idempotency_key = "approval:" .. name .. ":" .. args[7],
    dedup_ttl = tonumber(args[8]),
    max_signals = tonumber(args[9]),
    actor = "operator",
  }, record.now(tx, row))
end)
