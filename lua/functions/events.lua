-- History of one execution, and the stream of all.

--- Arguments: ref, namespace, the last event seen, how many, how many are kept.
--- @return when the execution was created, its events; nothing where there is none
operation.read("read_events", function(tx, args)
  local row = record.require(tx, args[1], args[2])
  if not row then
    return {}
  end
  return { row.created_at, history.read(tx, row, tonumber(args[3]), tonumber(args[4]), tonumber(args[5])) }
end)

--- @return up to where events are gone, and the position behind the newest
operation.read("feed_range", function(tx)
  return { feeds.floor(tx), feeds.newest(tx) }
end)

--- Fields of an entry of the stream, behind ref, route and tags.
local AT, TYPE, STATE, ATTEMPT, EPOCH, HOLDER, LEASE, ATTEMPT_ID, REASON, DATA = 4, 5, 7, 8, 9, 10, 11, 12, 13, 14

--- Entries behind a position. @return them, unpacked and with their id; the position read up to; 1 where there are more
local function entries_behind(tx, position, scan)
  local entries = {}
  local page = redis.call("XRANGE", tx.base .. ":e", "(" .. position, "+", "COUNT", scan)
  for index, each in ipairs(page) do
    local entry = { cmsgpack.unpack(each[2][2]) }
    entry.id = each[1]
    entries[index] = entry
  end
  return entries, #page > 0 and page[#page][1] or position, #page == scan and 1 or 0
end

--- Events behind a position, of some types. Arguments: the position, how many entries may be looked at, types.
--- @return up to where events are gone; where the position is not behind that, also the position read up to, 1 where there
--- are more, and for each event its id, at, type, state, attempt, epoch, holder's name, lease, attempt id, reason, data, tags,
--- ref, namespace and lane
operation.read("read_feed", function(tx, args)
  local floor = feeds.floor(tx)
  if feeds.is_before(args[1], floor) then
    return { floor }
  end
  local wanted = {}
  for at = 3, #args do
    wanted[tonumber(args[at])] = true
  end
  local entries, position, more = entries_behind(tx, args[1], tonumber(args[2]))
  local found = {}
  for _, entry in ipairs(entries) do
    if wanted[entry[TYPE]] then
      local route = routes.find(tx, entry[2])
      found[#found + 1] = {
        entry.id,
        entry[AT],
        entry[TYPE],
        answer.or_false(entry[STATE]),
        answer.or_false(entry[ATTEMPT]),
        answer.or_false(entry[EPOCH]),
        entry[HOLDER] and holders.name(tx, entry[HOLDER]) or false,
        answer.or_false(entry[LEASE]),
        answer.or_false(entry[ATTEMPT_ID]),
        answer.or_false(entry[REASON]),
        answer.or_false(entry[DATA]),
        answer.or_false(entry[3]),
        entry[1],
        route.namespace,
        route.lane,
      }
    end
  end
  return { floor, position, more, found }
end)

--- Notices of one instance behind a position. Arguments: the position, how many entries may be looked at, the instance.
--- @return the position read up to, 1 where there are more, and for each its ref, epoch, type, state, reason and data
operation.read("read_notices", function(tx, args)
  local entries, position, more = entries_behind(tx, args[1], tonumber(args[2]))
  local found, ours = {}, {}
  for _, entry in ipairs(entries) do
    if entry[HOLDER] and log.TOLD[entry[TYPE]] then
      local holder = entry[HOLDER]
      if ours[holder] == nil then
        ours[holder] = holders.name(tx, holder):match("\n(.*)$") == args[3]
      end
      if ours[holder] then
        found[#found + 1] = {
          entry[1],
          entry[EPOCH],
          entry[TYPE],
          answer.or_false(entry[STATE]),
          answer.or_false(entry[REASON]),
          answer.or_false(entry[DATA]),
        }
      end
    end
  end
  return { position, more, found }
end)
