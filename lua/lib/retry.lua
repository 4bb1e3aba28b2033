-- Mirrors core/src/rules/retry.ts: whether a failed attempt is tried again, and when.

local function contains(list, wanted)
  for _, item in ipairs(list or {}) do
    if item == wanted then
      return true
    end
  end
  return false
end

--- When the retry starts, or nothing: the execution has failed. `random` is uniform in [0, 1).
function retry.at(policy, failed, random)
  if not policy or failed.retries >= policy.maxRetries then
    return nil
  end
  if failed.classification == "permanent" or failed.classification == "cancelled" then
    return nil
  end
  local only = policy.retryableCategories
  if only and #only > 0 and not contains(only, failed.category) then
    return nil
  end
  if contains(policy.nonRetryableCategories, failed.category) then
    return nil
  end
  local at = failed.now + retry.backoff_ms(policy.backoff, failed.retries, random)
  if failed.deadline_at and at >= failed.deadline_at then
    return nil
  end
  return at
end

--- Delay before retry number `retries + 1`, whole milliseconds.
function retry.backoff_ms(backoff, retries, random)
  if backoff.type == "fixed" then
    return backoff.delayMs
  end
  local grown = 0
  if backoff.initialDelayMs > 0 then
    grown = backoff.initialDelayMs * backoff.multiplier ^ retries
  end
  local full = math.min(grown, backoff.maxDelayMs)
  if backoff.jitter then
    full = full / 2 + full / 2 * random
  end
  -- Half a millisecond is added to what is whole already nowhere: beyond 2^52 that would be a whole one.
  local whole = math.floor(full)
  return full - whole < 0.5 and whole or whole + 1
end
