-- What functions answer: a list whose first item is 0 and the rest the answer, or 1, a code and its detail as JSON; 2
-- alone where the numbers that the caller sent are not those of this store, and nothing was done.

answer.STALE = { stale = true }

--- Refuses a call: nothing that the caller asked for was written.
function answer.refuse(code, detail)
  return { refused = code, detail = detail }
end

function answer.not_found(ref)
  return answer.refuse("execution_not_found", { entity = "execution", executionId = text.of_ref(ref) })
end

--- The form in which an answer leaves the server. Nothing becomes an empty list.
function answer.encode(result)
  if result == nil then
    return { 0 }
  end
  if result.stale then
    return { 2 }
  end
  if result.refused then
    local detail = result.detail
    return { 1, result.refused, detail and text.encode(detail) or "{}" }
  end
  return { 0, unpack(result) }
end

--- A refusal as one item of a batch's answer.
function answer.item(result)
  if result.refused then
    local detail = result.detail
    return { "rejected", result.refused, detail and text.encode(detail) or "{}" }
  end
  return result
end

--- What pcall caught, as a text: some servers make one of every error, others leave those of commands as they are.
function answer.of_error(caught)
  return type(caught) == "table" and caught.err or tostring(caught)
end

--- Absent values keep their place in a list only as false.
function answer.or_false(value)
  if value == nil then
    return false
  end
  return value
end
