-- Mirrors core/src/rules/capabilities.ts: which worker may take which work.

--- Required tokens that are not offered, in the order required. `required`: a list; `offered`: a set.
function capabilities.missing(required, offered)
  local missing = {}
  for _, token in ipairs(required) do
    if not offered[token] then
      missing[#missing + 1] = token
    end
  end
  return missing
end

--- One worker must have every token; a union over several does not count. `live`: workers with `lanes` and
--- `capabilities` as sets.
function capabilities.coverage(required, lane, live)
  if #required == 0 then
    return "not_applicable"
  end
  if #live == 0 then
    return "no_workers"
  end
  local verdict = "no_worker_on_lane"
  for _, worker in ipairs(live) do
    if worker.lanes[lane] then
      if #capabilities.missing(required, worker.capabilities) == 0 then
        return "covered"
      end
      verdict = "no_superset"
    end
  end
  return verdict
end

--- Whether work of a route may stay in the order.
function capabilities.is_covered(required, lane, live)
  local verdict = capabilities.coverage(required, lane, live)
  return verdict == "covered" or verdict == "not_applicable"
end

--- A list as a set.
function capabilities.set_of(tokens)
  local set = {}
  for _, token in ipairs(tokens) do
    set[token] = true
  end
  return set
end
