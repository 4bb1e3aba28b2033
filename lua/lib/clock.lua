-- The store's clock: the server's, read once per call.

--- Epoch milliseconds, and the microseconds beyond them.
function clock.now(base)
  local time = redis.call("TIME")
  local micros = tonumber(time[2])
  return tonumber(time[1]) * 1000 + math.floor(micros / 1000), micros % 1000
end
