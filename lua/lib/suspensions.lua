-- The record of an execution's last suspension, and the receipts that repeated calls are answered from. Both lie in the hash of
-- its waitpoints: field "s", and "p" for what signals have come to so far; "k" and an idempotency key for a receipt.

--- A receipt: what a repeated suspend is answered from, and by whom it may be repeated. ids: those of its waitpoints, joined,
--- the primary one first.
local RECEIPT = { "id", "outcome", "lease", "epoch", "attempt_id", "attempt", "ttl", "holder", "ids" }

--- Of which the first is that receipt. condition: JSON, gone once the suspension is closed.
local COLUMNS = {
  "receipt",
  "reason",
  "requested_by",
  "created_at",
  "timeout_at",
  "behavior",
  "policy",
  "pointer",
  "closed_at",
  "close_reason",
  "trigger",
  "closer",
  "condition",
}

--- Takes the place of the one before. The receipt stays as it was first written.
function suspensions.save(tx, row, last)
  last.receipt = last.receipt or packed.write(RECEIPT, last)
  redis.call("HSET", waitpoints.key_of(tx, row.ref), "s", packed.write(COLUMNS, last))
end

local function unpacked(bytes)
  local last = packed.read(COLUMNS, bytes)
  for column, value in pairs(packed.read(RECEIPT, last.receipt)) do
    last[column] = last[column] or value
  end
  return last
end

--- Open or closed; nothing where there was none. @throws where it cannot be read
function suspensions.find(tx, row)
  local bytes = waitpoints.any(row) and redis.call("HGET", waitpoints.key_of(tx, row.ref), "s")
  if not bytes then
    return nil
  end
  local is_readable, last = pcall(unpacked, bytes)
  if not is_readable or type(last.ids) ~= "string" then
    error({ err = "FFCORRUPT " .. text.of_ref(row.ref) .. " suspension" })
  end
  return last
end

function suspensions.find_open(tx, row)
  local last = row.home == state.HOME.suspended and suspensions.find(tx, row)
  return last and not last.closed_at and last or nil
end

function suspensions.condition_of(last)
  return conditions.of(cjson.decode(last.condition))
end

function suspensions.progress(tx, row)
  return cmsgpack.unpack(redis.call("HGET", waitpoints.key_of(tx, row.ref), "p"))
end

function suspensions.save_progress(tx, row, progress)
  redis.call("HSET", waitpoints.key_of(tx, row.ref), "p", cmsgpack.pack(progress))
end

--- What it needed to evaluate signals goes. `finish`: close_reason, trigger, closer (a signal's id).
local function close(tx, row, last, finish, now)
  last.closed_at = now
  last.close_reason = finish.close_reason
  last.trigger = finish.trigger
  last.closer = finish.closer
  last.condition = nil
  suspensions.save(tx, row, last)
  redis.call("HDEL", waitpoints.key_of(tx, row.ref), "p")
  signals.forget_sources(tx, row)
  waitpoints.close_active(tx, row, finish.close_reason, now)
end

--- The way out that is no end: the interrupted attempt may go on, at once or after a delay. The caller tells of it, and saves the
--- row.
function suspensions.resume(tx, row, last, finish, delay, now)
  close(tx, row, last, finish, now)
  row.timeout_at = nil
  row.delay_until = delay > 0 and now + delay or nil
  side.change_details(row, {}, { "blockingDetail" })
  lifecycle.place_runnable(row, now, state.REASON.waiting_for_resume_delay)
end

--- The attempt is over, and with it all that waits for signals on its behalf.
function suspensions.end_attempt(tx, row, close_reason, now)
  if not waitpoints.any(row) then
    return
  end
  local open = suspensions.find_open(tx, row)
  if open then
    close(tx, row, open, { close_reason = close_reason }, now)
  end
  waitpoints.close_pending(tx, row, now)
end

--- Everything of them goes, with their execution.
function suspensions.forget(tx, row)
  if waitpoints.any(row) then
    redis.call("UNLINK", waitpoints.key_of(tx, row.ref))
    signals.forget(tx, row)
  end
end

local function is_receipt_of(receipt, own)
  return receipt.lease == own.lease and receipt.epoch == own.epoch and receipt.attempt_id == own.attempt_id
end

--- Of an earlier call with this key, or of the last suspension where the id is its own; by the same lease only.
function suspensions.find_receipt(tx, row, id, key, own, now)
  if not waitpoints.any(row) then
    return nil
  end
  local kept = key ~= "" and redis.call("HGET", waitpoints.key_of(tx, row.ref), "k" .. key)
  if kept then
    local expires_at, bytes = cmsgpack.unpack(kept)
    local receipt = packed.read(RECEIPT, bytes)
    if expires_at > now and is_receipt_of(receipt, own) then
      return receipt
    end
  end
  local last = suspensions.find(tx, row)
  return last and last.id == id and is_receipt_of(last, own) and last or nil
end

--- Takes the place of one whose time is over, or that another lease left.
function suspensions.remember(tx, row, key, receipt, expires_at)
  if key ~= "" then
    local kept = cmsgpack.pack(expires_at, packed.write(RECEIPT, receipt))
    redis.call("HSET", waitpoints.key_of(tx, row.ref), "k" .. key, kept)
  end
end

--- Whether the lease of this epoch ended by suspending.
function suspensions.ended_lease(tx, row, epoch)
  local last = suspensions.find(tx, row)
  return last ~= nil and last.outcome == "suspended" and last.epoch == epoch
end
