-- The secrets that tokens are signed with, and what core/src/rules/keystore.ts says about them. A keystore: current, a kid or
-- nothing; secrets, by kid, each with hex and expires_at. Every cell has its own copy; secrets never leave the server.

local function key_of(tx)
  return tx.base .. ":secrets"
end

--- One command.
function keystore.read(tx)
  local stored = { secrets = {} }
  local fields, values = redis.call("HGETALL", key_of(tx)), {}
  for at = 1, #fields, 2 do
    values[fields[at]] = fields[at + 1]
  end
  for field, value in pairs(values) do
    local kid = field:match("^secret:(.*)$")
    if kid then
      local expiry = (values["expires_at:" .. kid] or ""):match("^%d+$")
      stored.secrets[kid] = { hex = value, expires_at = tonumber(expiry) }
    end
  end
  stored.current = values.current_kid
  return stored
end

--- The bytes of a secret, or nothing where what is stored is not clean hex.
function keystore.decode(hex)
  if #hex == 0 or #hex % 2 > 0 or hex:find("[^0-9a-fA-F]") then
    return nil
  end
  return text.bytes(hex)
end

local function is_in_grace(secret, now)
  local at = secret.expires_at
  return at ~= nil and at > 0 and at <= text.NUMBER_MAX and at == math.floor(at) and at >= now
end

--- The bytes that tokens of this kid are checked with, or why they are refused.
function keystore.verifying(stored, kid, now)
  local secret = stored.secrets[kid]
  if not secret then
    return nil, answer.refuse("invalid_token")
  end
  if kid ~= stored.current and not is_in_grace(secret, now) then
    return nil, answer.refuse("token_expired")
  end
  local bytes = keystore.decode(secret.hex)
  if not bytes then
    return nil, answer.refuse("invalid_secret")
  end
  return bytes
end

--- The bytes that new tokens are made with, or why none can be.
function keystore.signing(stored)
  local secret = stored.current and stored.secrets[stored.current]
  if not secret then
    return nil, answer.refuse("hmac_secret_not_initialized", { op = "waitpoint_hmac" })
  end
  local bytes = keystore.decode(secret.hex)
  if not bytes then
    return nil, answer.refuse("invalid_secret")
  end
  return bytes
end

--- A text that is no hex has no bytes, and so is the same as none.
local function is_same_secret(stored_hex, given_hex)
  local bytes = keystore.decode(stored_hex)
  return bytes ~= nil and bytes == keystore.decode(given_hex)
end

--- What a first key leads to: kind is "install", or "alreadySeeded" with same_secret; or a refusal.
function keystore.plan_seed(stored, kid, hex)
  if not stored.current then
    return { kind = "install" }
  end
  if stored.current ~= kid then
    return answer.refuse("invalid_input", {
      reason = "another kid signs already: '" .. stored.current .. "'; use rotateWaitpointHmacSecretAll",
      field = "kid",
    })
  end
  -- A current kid that lost its secret is given it again.
  local secret = stored.secrets[kid]
  if not secret then
    return { kind = "install" }
  end
  return { kind = "alreadySeeded", same_secret = is_same_secret(secret.hex, hex) }
end

--- What a new key leads to: kind is "rotate" with removed, previous and previous_expires_at, or "noop" with repair; or a refusal.
function keystore.plan_rotation(stored, kid, hex, grace, now)
  local installed = stored.secrets[kid]
  if kid == stored.current then
    if installed and not is_same_secret(installed.hex, hex) then
      return answer.refuse("rotation_conflict", { kid = kid })
    end
    return { kind = "noop", repair = installed == nil }
  end
  if installed and is_in_grace(installed, now) then
    return answer.refuse("rotation_conflict", { kid = kid })
  end
  local removed = {}
  for each, secret in pairs(stored.secrets) do
    if each ~= stored.current and not is_in_grace(secret, now) then
      removed[#removed + 1] = each
    end
  end
  return {
    kind = "rotate",
    removed = removed,
    previous = stored.current,
    previous_expires_at = stored.current and math.min(now + grace, text.NUMBER_MAX),
  }
end

--- Kids that only verify, by expiry, then kid: each { kid, expires at }.
function keystore.verifying_kids(stored, now)
  local found = {}
  for kid, secret in pairs(stored.secrets) do
    if kid ~= stored.current and is_in_grace(secret, now) then
      found[#found + 1] = { kid, secret.expires_at }
    end
  end
  table.sort(found, function(a, b)
    if a[2] ~= b[2] then
      return a[2] < b[2]
    end
    return text.is_before(a[1], b[1])
  end)
  return found
end

--- Makes this the secret that signs, whatever its kid was before.
function keystore.install(tx, kid, hex)
  redis.call("HSET", key_of(tx), "current_kid", kid, "secret:" .. kid, hex)
  redis.call("HDEL", key_of(tx), "expires_at:" .. kid)
end

--- The kid that signed so far only verifies from now on. The other two fields are for whoever audits.
function keystore.retire(tx, kid, expires_at)
  local at = text.of_number(expires_at)
  redis.call("HSET", key_of(tx), "expires_at:" .. kid, at, "previous_kid", kid, "previous_expires_at", at)
end

function keystore.remove(tx, kid)
  redis.call("HDEL", key_of(tx), "secret:" .. kid, "expires_at:" .. kid)
end
