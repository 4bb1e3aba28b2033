-- Where executions are found by their tags: for each tag and value one index, the newest execution first.

local function key_of(tx, condition)
  return tx.base .. ":g:" .. condition
end

--- Members of one score go by their bytes, so this is the order that searches answer in.
function tags.index(tx, row, tag, value)
  redis.call("ZADD", key_of(tx, tag .. "\n" .. value), text.of_number(-row.created_at), row.ref)
end

function tags.drop(tx, row, tag, value)
  redis.call("ZREM", key_of(tx, tag .. "\n" .. value), row.ref)
end

local PAGE = 100

--- One index from a place on: each call gives the next ref and its score.
local function walk(key, rank)
  local page, at = {}, 1
  return function()
    if at > #page then
      page = redis.call("ZRANGE", key, rank, rank + PAGE - 1, "WITHSCORES")
      rank, at = rank + PAGE, 1
    end
    at = at + 2
    return page[at - 2], tonumber(page[at - 1])
  end
end

local function comes_first(head, other)
  if head.score ~= other.score then
    return head.score < other.score
  end
  return text.is_before(head.ref, other.ref)
end

--- Several indexes as one; what is in more than one comes once.
local function union(walks)
  if #walks == 1 then
    return walks[1]
  end
  local heads = {}
  local function advance(index)
    local ref, score = walks[index]()
    heads[index] = ref and { ref = ref, score = score } or false
  end
  for index = 1, #walks do
    advance(index)
  end
  return function()
    local first
    for index = 1, #walks do
      local head = heads[index]
      if head and (not first or comes_first(head, first)) then
        first = head
      end
    end
    if not first then
      return nil
    end
    for index = 1, #walks do
      if heads[index] and heads[index].ref == first.ref then
        advance(index)
      end
    end
    return first.ref, first.score
  end
end

--- Everything behind a creation time, and behind a ref of that time.
local function behind(tx, conditions, query)
  local walks = {}
  for index, condition in ipairs(conditions) do
    local key = key_of(tx, condition)
    local rank = 0
    if query.created_before then
      rank = redis.call("ZCOUNT", key, "-inf", text.of_number(-query.created_before))
    end
    if query.after then
      rank = math.max(rank, redis.call("ZCOUNT", key, "-inf", "(" .. text.of_number(-query.after.created_at)))
    end
    walks[index] = walk(key, rank)
  end
  local next_one, after = union(walks), query.after
  return function()
    local ref, score = next_one()
    while ref and after and score == -after.created_at and not text.is_before(after.ref, ref) do
      ref, score = next_one()
    end
    after = nil
    return ref, score
  end
end

--- Creation times of a query, then its conditions, each a tag and its value with a line break between: after and before or
--- two empty ones, five arguments of a filter, how many conditions must all hold, those, then those of which one must.
function tags.read_query(args, from)
  local all_count = tonumber(args[from + 7])
  local query = {
    created_after = tonumber(args[from]),
    created_before = tonumber(args[from + 1]),
    filter = listing.read_filter(args, from + 2),
    all = {},
    any = {},
  }
  for at = from + 8, #args do
    local list = at - from - 8 < all_count and query.all or query.any
    list[#list + 1] = args[at]
  end
  return query
end

--- The condition that leads to the fewest; the others are then asked about each of those.
local function rarest(tx, conditions)
  local fewest, chosen = math.huge, 1
  for index, condition in ipairs(conditions) do
    local count = #conditions > 1 and redis.call("ZCARD", key_of(tx, condition)) or 0
    if count < fewest then
      fewest, chosen = count, index
    end
  end
  return chosen
end

local function has(tx, ref, condition)
  return redis.call("ZSCORE", key_of(tx, condition), ref)
end

local function holds(tx, query, ref, known)
  for index, condition in ipairs(query.all) do
    if index ~= known and not has(tx, ref, condition) then
      return false
    end
  end
  if not known or #query.any == 0 then
    return true
  end
  for _, condition in ipairs(query.any) do
    if has(tx, ref, condition) then
      return true
    end
  end
  return false
end

--- Looks through up to `budget` candidates in order. `visit` is told ref, creation time and home of each that the query is
--- about, and answers whether that is enough.
--- @return where it stopped, creation time and ref; nothing at the end
function tags.each(tx, query, budget, visit)
  local known = #query.all > 0 and rarest(tx, query.all) or nil
  local next_one = behind(tx, known and { query.all[known] } or query.any, query)
  for ref, score in next_one do
    local created_at = -score
    if query.created_after and created_at <= query.created_after then
      return nil
    end
    budget = budget - 1
    local is_enough = false
    if holds(tx, query, ref, known) then
      local at = listing.accepted(tx, ref, query.filter)
      is_enough = at and visit(ref, created_at, at)
    end
    if is_enough or budget == 0 then
      return created_at, ref
    end
  end
  return nil
end

--- How many there are, where one index knows; nothing where each has to be looked at.
function tags.count_at_once(tx, query)
  if #query.all + #query.any > 1 or query.filter or query.after then
    return nil
  end
  local function bound(created_at)
    return created_at and "(" .. text.of_number(-created_at)
  end
  return redis.call(
    "ZCOUNT",
    key_of(tx, query.all[1] or query.any[1]),
    bound(query.created_before) or "-inf",
    bound(query.created_after) or "+inf"
  )
end
