-- Only for tests, loaded behind the library: the clock goes by an offset that a test may change.

function clock.now(base)
  local time = redis.call("TIME")
  local offset = tonumber(redis.call("HGET", base, "clock") or 0)
  local micros = tonumber(time[2])
  return tonumber(time[1]) * 1000 + math.floor(micros / 1000) + offset, micros % 1000
end
