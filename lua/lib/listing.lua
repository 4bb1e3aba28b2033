-- Looking through many executions: what lists and searches need of each, and what they may be narrowed to.

local function set_of(lines)
  local set = {}
  for line in lines:gmatch("[^\n]+") do
    set[line] = true
  end
  return set
end

--- Five arguments: a namespace or nothing, "1" and lanes by line or two empty ones, "1" and homes by line likewise. Nothing
--- where all are welcome.
function listing.read_filter(args, from)
  local filter = {
    namespace = args[from] ~= "" and args[from] or nil,
    lanes = args[from + 1] == "1" and set_of(args[from + 2]) or nil,
    homes = args[from + 3] == "1" and set_of(args[from + 4]) or nil,
  }
  return next(filter) and filter
end

--- The home of an execution as answers show it, and its route; nothing where there is none.
function listing.look(tx, ref)
  local row = record.find(tx, ref)
  if not row then
    return nil
  end
  return home.at(row, tx.now), row.route
end

--- Is it there, and what was asked for? @return its home where it is
function listing.accepted(tx, ref, filter)
  local at, route_id = listing.look(tx, ref)
  if not at or not filter then
    return at
  end
  if filter.homes and not filter.homes[text.of_number(at)] then
    return nil
  end
  if filter.namespace or filter.lanes then
    local route = routes.find(tx, route_id)
    if filter.namespace and route.namespace ~= filter.namespace then
      return nil
    end
    if filter.lanes and not filter.lanes[route.lane] then
      return nil
    end
  end
  return at
end
