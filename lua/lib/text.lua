-- Numbers and ids as they are stored and answered.

--- The largest whole number that has no other beside it.
text.NUMBER_MAX = 2 ^ 53 - 1

--- A whole number as text; plain tostring() rounds beyond 14 digits. Arguments of commands need no such care.
function text.of_number(value)
  return string.format("%.0f", value)
end

--- Bytes in digits.
function text.hex(bytes)
  return (bytes:gsub(".", function(byte)
    return string.format("%02x", byte:byte())
  end))
end

--- The bytes of digits.
function text.bytes(hex)
  return (hex:gsub("..", function(digits)
    return string.char(tonumber(digits, 16))
  end))
end

--- A uuid of 16 bytes in its usual form.
function text.of_uuid(bytes)
  local hex = text.hex(bytes)
  return hex:sub(1, 8)
    .. "-"
    .. hex:sub(9, 12)
    .. "-"
    .. hex:sub(13, 16)
    .. "-"
    .. hex:sub(17, 20)
    .. "-"
    .. hex:sub(21)
end

--- The id `{fp:7}:<uuid>` of a ref: 16 bytes of uuid, then two of the partition.
function text.of_ref(ref)
  local high, low = ref:byte(17, 18)
  return "{fp:" .. (high * 256 + low) .. "}:" .. text.of_uuid(ref:sub(1, 16))
end

--- The partition of a ref.
function text.partition_of(ref)
  local high, low = ref:byte(17, 18)
  return high * 256 + low
end

--- JSON that may be absent or empty.
function text.decoded(json)
  if not json or json == "" then
    return {}
  end
  return cjson.decode(json)
end

--- JSON of a list that is not empty, or of a table with text keys. Whole numbers keep all their digits, of which the server's own encoder drops some.
function text.encode(value)
  if type(value) == "number" and value == math.floor(value) then
    return text.of_number(value)
  end
  if type(value) ~= "table" then
    return cjson.encode(value)
  end
  local fields = {}
  if value[1] ~= nil then
    for place, item in ipairs(value) do
      fields[place] = text.encode(item)
    end
    return "[" .. table.concat(fields, ",") .. "]"
  end
  for name, field in pairs(value) do
    fields[#fields + 1] = cjson.encode(name) .. ":" .. text.encode(field)
  end
  return "{" .. table.concat(fields, ",") .. "}"
end

--- Whether a text comes before another by its bytes. Plain < goes by the server's locale, which may order them otherwise.
function text.is_before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end
