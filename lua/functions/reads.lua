-- Reads of executions. What only time has changed is derived by whoever asked, from the instant of the answer.

--- What every read of one execution begins with: now, namespace, lane, required capabilities, holder's name, the row.
local function told(tx, row)
  local route = routes.find(tx, row.route)
  return {
    tx.now,
    route.namespace,
    route.lane,
    table.concat(route.required, ","),
    row.holder and holders.name(tx, row.holder) or false,
    record.values(tx, row),
  }
end

--- Defines a read of one execution. Arguments: ref, namespace, more. @return nothing where there is none in the namespace
local function read_one(name, body)
  operation.read(name, function(tx, args)
    local row = record.require(tx, args[1], args[2])
    return row and body(tx, row, args) or {}
  end)
end

--- Commands: 1 for the clock, 1 for the record, up to 4 for what it names.
read_one("read", told)

--- @return what read does, then creator, percent and message of its progress, the primary waitpoint of its open suspension
read_one("describe", function(tx, row)
  local answer_list = told(tx, row)
  for _, value in ipairs(redis.call("HMGET", tx.base .. ":d:" .. row.ref, "creator", "percent", "message")) do
    answer_list[#answer_list + 1] = value
  end
  local open = suspensions.find_open(tx, row)
  answer_list[#answer_list + 1] = open and waitpoints.ids_of(open.ids)[1] or false
  return answer_list
end)

--- @return kind, tags, input
read_one("read_context", function(tx, row)
  return { row.kind, answer.or_false(row.tags), answer.or_false(record.input(tx, row)) }
end)

--- @return the bytes; nothing where there are none, and none are something
read_one("read_result", function(tx, row)
  return { answer.or_false(record.output(tx, row)) }
end)

local ATTEMPTS_AT_ONCE = 500

--- @return what read does, then for each archived attempt its index, its record as JSON, its holder's name
read_one("read_attempts", function(tx, row)
  local archived = {}
  for first = 0, row.attempts - 1, ATTEMPTS_AT_ONCE do
    local fields = {}
    for index = first, math.min(first + ATTEMPTS_AT_ONCE, row.attempts) - 1 do
      fields[#fields + 1] = "a" .. index
    end
    for at, json in ipairs(redis.call("HMGET", tx.base .. ":d:" .. row.ref, unpack(fields))) do
      if json then
        archived[#archived + 1] = { first + at - 1, json, holders.name(tx, cjson.decode(json).holder) }
      end
    end
  end
  local answer_list = told(tx, row)
  answer_list[#answer_list + 1] = archived
  return answer_list
end)

local LIST_PAGE = 128

--- Executions in the order of their creation. Arguments: the place behind which to begin, how many, how many may be looked
--- at, a partition or nothing, five of a filter.
--- @return their places, their refs, up to which place was looked, 1 where that is the end
operation.read("list", function(tx, args)
  local place, limit, budget, partition = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  local filter = listing.read_filter(args, 5)
  local places, refs = {}, {}
  while #refs < limit and budget > 0 do
    local size = math.min(budget, LIST_PAGE)
    local page =
      redis.call("ZRANGE", tx.base .. ":all", "(" .. place, "+inf", "BYSCORE", "LIMIT", 0, size, "WITHSCORES")
    for at = 1, #page, 2 do
      local ref = page[at]
      place = page[at + 1]
      if not partition or text.partition_of(ref) == partition then
        if not filter or listing.accepted(tx, ref, filter) then
          refs[#refs + 1] = ref
          places[#places + 1] = tonumber(place)
          if #refs == limit then
            return { places, refs, tonumber(place), 0 }
          end
        end
      end
    end
    if #page < 2 * size then
      return { places, refs, tonumber(place), 1 }
    end
    budget = budget - size
  end
  return { places, refs, tonumber(place), 0 }
end)

--- Lanes in the order of their bytes. Arguments: the lane behind which to begin or nothing, how many.
operation.read("list_lanes", function(tx, args)
  local from = args[1] == "" and "-" or "(" .. args[1]
  return { redis.call("ZRANGE", tx.base .. ":lanes", from, "+", "BYLEX", "LIMIT", 0, args[2]) }
end)
