-- Tags of executions, and searching by them.

local TAGS_MAX = 32

--- Arguments: ref, namespace, tag, value.
operation.write("set_tag", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2])
  if missing then
    return missing
  end
  local tag, value = args[3], args[4]
  local all = text.decoded(row.tags)
  local old, count = all[tag], 0
  for _ in pairs(all) do
    count = count + 1
  end
  if not old and count >= TAGS_MAX then
    return answer.refuse("invalid_input", {
      reason = "the execution has " .. TAGS_MAX .. " tags already",
      field = "key",
    })
  end
  if old == value then
    return
  end

  if old then
    tags.drop(tx, row, tag, old)
  end
  tags.index(tx, row, tag, value)
  all[tag] = value
  row.tags = text.encode(all)
  local now = record.now(tx, row)
  row.mutated_at = now
  log.append_to_feed(tx, row, "tags_changed", now, "client", {
    transition = false,
    data = { cleared = old and { [tag] = old } or nil, attached = { [tag] = value } },
  })
  -- A change at this instant makes what time has brought until now a fact, whatever the clock does next.
  lifecycle.promote_if_due(tx, row, now)
  lifecycle.mark_lapsed_if_due(tx, row, now)
  record.save(tx, row)
  lifecycle.ring(tx, row)
end)

--- Arguments: ref, namespace, tag. @return its value, or nothing
operation.read("read_tag", function(tx, args)
  local row = record.require(tx, args[1], args[2])
  local value = row and text.decoded(row.tags)[args[3]]
  return value and { value } or {}
end)

--- The place behind which a look begins, as two arguments: creation time and ref, or two empty ones.
local function read_place(args, from)
  return args[from] ~= "" and { created_at = tonumber(args[from]), ref = args[from + 1] } or nil
end

local function told_place(created_at, ref)
  return created_at and { created_at, ref } or false
end

--- The newest first, then by ref. Arguments: a place, how many, how many may be looked at, the query.
--- @return for each its creation time, ref, home and tags; where the look stopped, or nothing at the end
operation.read("search_tags", function(tx, args)
  local query = tags.read_query(args, 5)
  query.after = read_place(args, 1)
  local limit, found = tonumber(args[3]), {}
  local last_at, last = tags.each(tx, query, tonumber(args[4]), function(each, created_at, at)
    found[#found + 1] = { created_at, each, at, answer.or_false(record.find(tx, each).tags) }
    return #found == limit
  end)
  return { found, told_place(last_at, last) }
end)

--- Arguments: a place, how many may be looked at, the query.
--- @return how many there are behind that place; where the look stopped, or nothing at the end
operation.read("count_tags", function(tx, args)
  local query = tags.read_query(args, 4)
  query.after = read_place(args, 1)
  local count = tags.count_at_once(tx, query)
  if count then
    return { count, false }
  end
  count = 0
  local created_at, ref = tags.each(tx, query, tonumber(args[3]), function()
    count = count + 1
  end)
  return { count, told_place(created_at, ref) }
end)
