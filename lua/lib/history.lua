-- The events of one execution, as its history shows them.

local STEP = 100

local function is_end(event_type)
  return event_type >= state.EVENT.completed and event_type <= state.EVENT.skipped
end

--- Packed events by number. Most lie in the record, later and longer ones in a hash of their own.
local function read(tx, row, numbers)
  local flat = row.history and { cmsgpack.unpack(row.history) } or {}
  local short = {}
  for at = 1, #flat, 2 do
    short[flat[at]] = flat[at + 1]
  end
  local found, rest = {}, {}
  for _, n in ipairs(numbers) do
    if short[n] then
      found[n] = short[n]
    else
      rest[#rest + 1] = n
    end
  end
  if #rest > 0 and record.has_part(row, record.PART.history) then
    for index, packed in ipairs(redis.call("HMGET", tx.base .. ":v:" .. row.ref, unpack(rest))) do
      found[rest[index]] = packed or nil
    end
  end
  return found
end

local function range(from, to)
  local numbers = {}
  for n = from, to do
    numbers[#numbers + 1] = n
  end
  return numbers
end

--- The numbers behind `after` whose events may still be there, without looking at each of a very long history.
local function numbers_behind(tx, row, after)
  if row.events - after <= 2 * log.LONG_HISTORY then
    return range(after + 1, row.events)
  end
  local numbers = range(after + 1, log.SHORT_HISTORY)
  for _, field in ipairs(redis.call("HKEYS", tx.base .. ":v:" .. row.ref)) do
    local n = tonumber(field)
    if n > after and n > log.SHORT_HISTORY then
      numbers[#numbers + 1] = n
    end
  end
  table.sort(numbers)
  return numbers
end

--- The state of the newest event up to a number that has one; nothing where it is not known any more.
local function state_at(tx, row, number)
  for to = math.min(number, row.events), 1, -STEP do
    local from = math.max(1, to - STEP + 1)
    local found = read(tx, row, range(from, to))
    for n = to, from, -1 do
      if not found[n] then
        return nil
      end
      local packed_state = log.unpack(found[n])[4]
      if packed_state then
        return packed_state
      end
    end
  end
  return nil
end

--- As it leaves the server: n, at, type, actor, state, state before, attempt, epoch, holder's name, lease, attempt id, reason,
--- data.
local function told(tx, n, entry, before)
  return {
    n,
    entry[1],
    entry[2],
    entry[3],
    answer.or_false(entry[4]),
    before or false,
    answer.or_false(entry[5]),
    answer.or_false(entry[6]),
    entry[7] and holders.name(tx, entry[7]) or false,
    answer.or_false(entry[8]),
    answer.or_false(entry[9]),
    answer.or_false(entry[10]),
    answer.or_false(entry[11]),
  }
end

--- Up to `limit` events behind `after`. The newest `kept` are shown, the first and every end too; for each gap between them
--- stand its first and its last number.
function history.read(tx, row, after, limit, kept)
  local first_kept = row.events - kept + 1
  local numbers = numbers_behind(tx, row, after)
  local before = state_at(tx, row, after)
  local shown, gap_from, last = {}, nil, after
  for first = 1, #numbers, STEP do
    local page = { unpack(numbers, first, math.min(first + STEP - 1, #numbers)) }
    local found = read(tx, row, page)
    for _, n in ipairs(page) do
      if #shown >= limit then
        return shown
      end
      local entry = found[n] and log.unpack(found[n])
      if n > last + 1 then
        gap_from, before = gap_from or last + 1, nil
      end
      if entry and (n >= first_kept or n == 1 or is_end(entry[2])) then
        if gap_from then
          shown[#shown + 1] = { gap_from, n - 1 }
          gap_from = nil
        end
        if #shown < limit then
          shown[#shown + 1] = told(tx, n, entry, before)
        end
      else
        gap_from = gap_from or n
      end
      if not entry then
        before = nil
      elseif entry[4] then
        before = entry[4]
      end
      last = n
    end
  end
  return shown
end
