-- Mirrors core/src/rules/token.ts: tokens of waitpoints. Nothing of one is stored; it is made again whenever it has to be shown.

--- 64 hexadecimal digits. `subject`: what the waitpoint is, as id, created_at and key. The key comes last, so that free text
--- cannot shift a field.
function token.digest(secret, kid, execution_id, subject)
  local message = { kid, execution_id, text.of_uuid(subject.id), text.of_number(subject.created_at), subject.key }
  return text.hex(sha256.hmac(secret, table.concat(message, "|")))
end

function token.of_digest(kid, digest)
  return kid .. ":" .. digest
end

--- The token of a waitpoint made earlier, where its kid is still good; else it would open nothing.
function token.shown(stored, ref, waitpoint, now)
  local secret = keystore.verifying(stored, waitpoint.kid, now)
  return secret and token.of_digest(waitpoint.kid, token.digest(secret, waitpoint.kid, text.of_ref(ref), waitpoint))
end

--- As long for texts that differ at their first byte as for equal ones.
local function is_equal(expected, given)
  local difference = bit.bxor(#expected, #given)
  for at = 1, #expected do
    difference = bit.bor(difference, bit.bxor(expected:byte(at), given:byte(at) or 0))
  end
  return difference == 0
end

--- Checks 3 to 6 of a token whose form was found right. `found` is the waitpoint, or nothing where there is none: the same work
--- is then done for nothing, so that nobody learns from it what exists.
function token.refusal(stored, given, execution_id, id, found, now)
  if not stored.current then
    return answer.refuse("hmac_secret_not_initialized", { op = "waitpoint_hmac" })
  end
  local secret, refusal = keystore.verifying(stored, given.kid, now)
  if refusal then
    return refusal
  end
  local subject = { id = id, created_at = found and found.created_at or now, key = found and found.key or "" }
  local is_right = is_equal(token.digest(secret, given.kid, execution_id, subject), given.digest)
  return not (is_right and found) and answer.refuse("invalid_token") or nil
end
