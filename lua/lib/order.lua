-- Mirrors core/src/rules/order.ts: who is claimed first, and when lost work is offered again.

order.PRIORITY_STEP_MS = 1000000000000
order.RECLAIM_BACKOFF_MAX_MS = 60000

--- Smallest first: higher priority, then older. Exact in 53 bits.
function order.sort_key(created_at, priority)
  return created_at - priority * order.PRIORITY_STEP_MS
end

--- How long after its loss an execution that was already taken over `reclaims` times is offered again.
function order.reclaim_backoff_ms(reclaims)
  if reclaims == 0 then
    return 0
  end
  return math.min(1000 * 2 ^ math.min(reclaims - 1, 6), order.RECLAIM_BACKOFF_MAX_MS)
end
