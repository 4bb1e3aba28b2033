-- SHA-256 and HMAC with it, which the server has only with SHA-1. About 0.1 ms for a token.

local BLOCK = 64

local band, bxor, ror, rshift, tobit
local START, ROUND = {}, {}

--- The constants are the first 32 bits behind the point of roots of primes.
local function bits_of(root)
  return math.floor(root % 1 * 2 ^ 32)
end

--- Once, at first use: while the library is loaded the server offers nothing.
local function prepare()
  band, bxor, ror, rshift, tobit = bit.band, bit.bxor, bit.ror, bit.rshift, bit.tobit
  local candidate = 2
  while #ROUND < BLOCK do
    local is_prime = true
    for divisor = 2, math.floor(math.sqrt(candidate)) do
      is_prime = is_prime and candidate % divisor ~= 0
    end
    if is_prime then
      ROUND[#ROUND + 1] = bits_of(candidate ^ (1 / 3))
      if #ROUND <= 8 then
        START[#ROUND] = bits_of(math.sqrt(candidate))
      end
    end
    candidate = candidate + 1
  end
end

local words = {}

--- The state behind one more block of the message. A sum of a few words is exact before it is cut to 32 bits.
local function compress(before, message, from)
  local w, band, bxor, ror, tobit = words, band, bxor, ror, tobit
  for i = 1, 16 do
    local at = from + 4 * i - 4
    local b1, b2, b3, b4 = message:byte(at, at + 3)
    w[i] = b1 * 0x1000000 + b2 * 0x10000 + b3 * 0x100 + b4
  end
  for i = 17, BLOCK do
    local x, y = w[i - 15], w[i - 2]
    local mixed = bxor(ror(x, 7), ror(x, 18), rshift(x, 3)) + bxor(ror(y, 17), ror(y, 19), rshift(y, 10))
    w[i] = tobit(w[i - 16] + w[i - 7] + mixed)
  end
  local a, b, c, d, e, f, g, h = unpack(before)
  local bc = bxor(b, c)
  for i = 1, BLOCK do
    local choice = bxor(g, band(e, bxor(f, g)))
    local first = h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + choice + ROUND[i] + w[i]
    local ab = bxor(a, b)
    local majority = bxor(b, band(ab, bc))
    local second = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + majority
    h, g, f, e, d, c, b, a, bc = g, f, e, tobit(d + first), c, b, a, tobit(first + second), ab
  end
  local after = { a, b, c, d, e, f, g, h }
  for i = 1, 8 do
    after[i] = tobit(after[i] + before[i])
  end
  return after
end

--- The hash of a message of which `done` bytes, whole blocks, are in the state already.
local function finish(hash, message, done)
  local length = done + #message
  local padded = message .. "\128" .. ("\0"):rep((55 - length) % BLOCK) .. struct.pack(">I4I4", 0, length * 8)
  for from = 1, #padded, BLOCK do
    hash = compress(hash, padded, from)
  end
  return struct.pack(">i4i4i4i4i4i4i4i4", unpack(hash))
end

local function padded_with(key, pad)
  local bytes = key:gsub(".", function(each)
    return string.char(bxor(each:byte(), pad))
  end)
  return compress(START, bytes, 1)
end

--- What a key comes to is the same each time: kept for the few that are in use.
local KEPT_MAX = 16
local kept, kept_count = {}, 0

--- 32 bytes.
function sha256.hmac(key, message)
  if not band then
    prepare()
  end
  local states = kept[key]
  if not states then
    local block = #key > BLOCK and finish(START, key, 0) or key
    block = block .. ("\0"):rep(BLOCK - #block)
    states = { padded_with(block, 0x36), padded_with(block, 0x5c) }
    if kept_count >= KEPT_MAX then
      kept, kept_count = {}, 0
    end
    kept[key], kept_count = states, kept_count + 1
  end
  return finish(states[2], finish(states[1], message, BLOCK), BLOCK)
end
