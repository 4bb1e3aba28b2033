-- Mirrors core/src/rules/frames.ts, frame-ids.ts and stream-pages.ts: who may append, how frames are numbered, how many stay.

--- Index in FRAME_MODES of core/src/streams.ts.
frames.MODE = { durable = 0, summary = 1, best_effort = 2 }
frames.SUMMARY_KEPT = 64
--- Where the policy says nothing.
frames.DURABLE_KEPT = 10000

--- May this holder append? Everything that fence.check refuses is one of two things here: the attempt is not running, or it is
--- not this holder's.
function frames.check_append(row, own, now)
  local refusal = fence.check(row, own, now, own.attempt)
  if not refusal then
    return nil
  end
  if refusal.refused == "execution_not_active" then
    return answer.refuse("stream_closed")
  end
  return answer.refuse("stale_owner_cannot_append")
end

--- By the numbers that the caller gave to the first and the final frame: is this the last call again, does it go on, or back?
--- @return "append", "repeat" or a refusal
function frames.check_caller_seq(last, first, final)
  if not first or not last or first > last then
    return "append"
  end
  if final == last then
    return "repeat"
  end
  return answer.refuse("invalid_input", {
    field = "seq",
    reason = "seq_not_monotonic: " .. text.of_number(first) .. " was given after " .. text.of_number(last),
  })
end

--- Never below the one before, whatever the clock does; that is nothing where there is none. @return milliseconds, number
function frames.next_id(last_ms, last_n, now)
  if not last_ms or last_ms < now then
    return now, 0
  end
  return last_ms, last_n + 1
end

--- How many best-effort frames one more append keeps: what its rate brings in twice their time to live. `rate` and `at` are of
--- the append before, or nothing; `mode`: ttl, floor, ceiling, alpha. @return the new rate, how many
function frames.size_best_effort(rate, at, mode, now)
  local span_seconds = mode.ttl / 1000 * 2
  local new_rate
  if rate then
    new_rate = mode.alpha * (1000 / math.max(1, now - at)) + (1 - mode.alpha) * rate
  else
    new_rate = mode.floor / span_seconds
  end
  return new_rate, math.min(mode.ceiling, math.max(mode.floor, math.ceil(new_rate * span_seconds)))
end

--- One more frame of a class of which so many stay. @return how many are there then, how many go
function frames.admit(retained, kept)
  local excess = math.max(0, retained + 1 - kept)
  return retained + 1 - excess, excess
end

--- A best-effort frame of the millisecond `ms` is gone once its time is over, removed or not.
function frames.is_visible(ms, ttl, now)
  return ms + ttl >= now
end
