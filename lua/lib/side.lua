-- What is seldom set. Tags and details are columns of the record; policy, creator, key, progress, grant and earlier attempts
-- are in a hash beside it.

local function key_of(tx, row)
  return tx.base .. ":d:" .. row.ref
end

function side.get(tx, row, field)
  return redis.call("HGET", key_of(tx, row), field) or nil
end

function side.set(tx, row, field, value)
  redis.call("HSET", key_of(tx, row), field, value)
end

function side.drop(tx, row, ...)
  redis.call("HDEL", key_of(tx, row), ...)
end

--- What core calls details: reasons, lineage, block notes. A fresh table.
function side.details(row)
  return text.decoded(row.details)
end

--- Merges; a field of `gone` goes away. The caller saves the row.
function side.change_details(row, change, gone)
  if not row.details and next(change) == nil then
    return
  end
  local details = side.details(row)
  for _, field in ipairs(gone or {}) do
    details[field] = nil
  end
  for field, value in pairs(change) do
    details[field] = value
  end
  row.details = next(details) and text.encode(details) or nil
end

--- Nothing of what was there stays. The caller saves the row.
function side.replace_details(row, details)
  row.details = nil
  side.change_details(row, details)
end

--- The caller saves the row.
function side.drop_progress(tx, row)
  if row.progress_at then
    side.drop(tx, row, "percent", "message", "logged_at")
    row.progress_at = nil
  end
end

--- The retry part of the frozen policy, as core has parsed it: { retryPolicy?, retryOnTimeout? }.
function side.retry(tx, row)
  if not record.has_part(row, record.PART.policy) then
    return {}
  end
  return text.decoded(side.get(tx, row, "retry"))
end
