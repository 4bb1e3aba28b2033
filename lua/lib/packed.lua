-- Small records as one packed value: their columns by position, from a list of names. Columns are added at the end, and none
-- changes its meaning or goes: what a newer version of the library has added is kept, and written back.

local function to_record(columns, ...)
  local values = { ... }
  local found = { newer = { select(#columns + 1, ...) } }
  for place, column in ipairs(columns) do
    found[column] = values[place]
  end
  return found
end

function packed.read(columns, bytes)
  return to_record(columns, cmsgpack.unpack(bytes))
end

--- What has no columns in the list is left out.
function packed.write(columns, from)
  local values, newer = {}, from.newer or {}
  for place, column in ipairs(columns) do
    values[place] = from[column]
  end
  for place, value in ipairs(newer) do
    values[#columns + place] = value
  end
  return cmsgpack.pack(unpack(values, 1, #columns + #newer))
end
