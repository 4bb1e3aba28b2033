-- The secrets that tokens are signed with: one copy in each cell. They come in and never go out. Allowed at the memory limit, or
-- no process could come to drain it.

--- Arguments: kid, secret as hex. @return "seeded"; or "alreadySeeded" and 1 where the secret is the same
operation.drain("seed_secret", function(tx, args)
  local plan = keystore.plan_seed(keystore.read(tx), args[1], args[2])
  if plan.refused then
    return plan
  end
  if plan.kind == "alreadySeeded" then
    return { plan.kind, plan.same_secret and 1 or 0 }
  end

  keystore.install(tx, args[1], args[2])

  return { "seeded" }
end)

--- Arguments: new kid, its secret as hex, grace. @return "noop"; or "rotated", the previous kid or nothing, how many were removed
operation.drain("rotate_secret", function(tx, args)
  local kid, hex = args[1], args[2]
  local plan = keystore.plan_rotation(keystore.read(tx), kid, hex, tonumber(args[3]), tx.now)
  if plan.refused then
    return plan
  end
  if plan.kind == "noop" then
    if plan.repair then
      keystore.install(tx, kid, hex)
    end
    return { "noop" }
  end

  for _, removed in ipairs(plan.removed) do
    keystore.remove(tx, removed)
  end
  if plan.previous then
    keystore.retire(tx, plan.previous, plan.previous_expires_at)
  end
  keystore.install(tx, kid, hex)

  return { "rotated", answer.or_false(plan.previous), #plan.removed }
end)

--- @return the kid that signs or nothing, and those that only verify, each with its last instant
operation.read("list_kids", function(tx)
  local stored = keystore.read(tx)
  return { answer.or_false(stored.current), keystore.verifying_kids(stored, tx.now) }
end)
