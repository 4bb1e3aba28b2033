-- Mirrors core/src/rules/conditions.ts: when a suspension may go on. A tree over the signals of its waitpoints; its leaves
-- are numbered in depth-first order, and progress holds one small value for each. That a tree has the right shape, and how
-- large it may be, was checked before it came here.

local function is_count(node)
  return node.kind == "composite" and node.body.kind == "count"
end

local function gather(node, leaves)
  if node.kind == "single" then
    leaves[#leaves + 1] = { matcher = node.matcher, keys = { node.waitpointKey } }
  elseif is_count(node) then
    local body = node.body
    leaves[#leaves + 1] = { matcher = body.matcher, keys = body.waitpoints, counts = body.countKind }
  elseif node.kind == "composite" then
    for _, member in ipairs(node.body.members) do
      gather(member, leaves)
    end
  end
  return leaves
end

--- What one signal after the other is held against: the tree, and its leaves with the places of their keys.
function conditions.of(root)
  local leaves = gather(root, {})
  for _, leaf in ipairs(leaves) do
    leaf.places = {}
    for place, key in ipairs(leaf.keys) do
      leaf.places[key] = place
    end
  end
  return { root = root, leaves = leaves }
end

--- How many distinct satisfiers a leaf has; of distinctWaitpoints a 0 or 1 for each key, in the order of the node.
function conditions.initial(condition)
  local progress = {}
  for number, leaf in ipairs(condition.leaves) do
    progress[number] = leaf.counts == "distinctWaitpoints" and ("0"):rep(#leaf.keys) or 0
  end
  return progress
end

local function accepts(matcher, name)
  return not matcher or matcher.kind ~= "byName" or matcher.name == name
end

--- Which leaves a signal could count for: named, whether any leaf names the key; leaves; sources, those of them that need to
--- know whether its source has counted before.
function conditions.match(condition, key, name)
  local match = { named = false, leaves = {}, sources = {} }
  for number, leaf in ipairs(condition.leaves) do
    if leaf.places[key] then
      match.named = true
      if accepts(leaf.matcher, name) then
        match.leaves[#match.leaves + 1] = number
        if leaf.counts == "distinctSources" then
          match.sources[#match.sources + 1] = number
        end
      end
    end
  end
  return match
end

--- One more satisfier, or nothing where this one is none.
local function grown(leaf, before, key)
  if not leaf.counts then
    return before == 0 and 1 or nil
  end
  if type(before) == "number" then
    return before + 1
  end
  local at = leaf.places[key]
  if before:sub(at, at) == "1" then
    return nil
  end
  return before:sub(1, at - 1) .. "1" .. before:sub(at + 1)
end

local function count_of(value)
  return type(value) == "number" and value or select(2, value:gsub("1", ""))
end

--- The value of the tree, from its leaves up; nothing of it is cached.
function conditions.is_satisfied(condition, progress)
  local leaf = 0
  local function value_of(node)
    if node.kind == "single" or is_count(node) then
      leaf = leaf + 1
      return count_of(progress[leaf]) >= (node.kind == "single" and 1 or node.body.n)
    end
    if node.kind ~= "composite" then
      return false
    end
    -- Every member is gone through, for its leaves have numbers too.
    local all = true
    for _, member in ipairs(node.body.members) do
      all = value_of(member) and all
    end
    return all
  end
  return value_of(condition.root)
end

--- Counts one signal that nobody has seen before, for every leaf that it matches, in progress. `known`: leaves that have counted
--- a signal of its source already. @return its effect, and the leaves that grew
function conditions.advance(condition, progress, match, key, known)
  local counted = {}
  for _, number in ipairs(match.leaves) do
    local value = not known[number] and grown(condition.leaves[number], progress[number], key)
    if value then
      progress[number] = value
      counted[#counted + 1] = number
    end
  end
  if #match.leaves == 0 then
    if condition.root.kind ~= "composite" then
      return "no_op", counted
    end
    return match.named and "signal_ignored_matcher_failed" or "signal_ignored_not_in_condition", counted
  end
  if #counted == 0 then
    return "appended_to_waitpoint_duplicate", counted
  end
  if conditions.is_satisfied(condition, progress) then
    return "resume_condition_satisfied", counted
  end
  return "appended_to_waitpoint", counted
end

--- Did some leaf take it for its own, counted before or not?
function conditions.is_match(effect)
  return effect == "resume_condition_satisfied"
    or effect == "appended_to_waitpoint"
    or effect == "appended_to_waitpoint_duplicate"
end

--- Which names could count on this key; none: any could. Two forms that no name satisfies have markers.
function conditions.required_names(condition, key)
  local kind = condition.root.kind
  if kind == "operatorOnly" or kind == "timeoutOnly" then
    return { kind == "operatorOnly" and "__operator_only__" or "__timeout_only__" }
  end
  local names, known = {}, {}
  for _, leaf in ipairs(condition.leaves) do
    if leaf.places[key] then
      if not leaf.matcher or leaf.matcher.kind ~= "byName" then
        return {}
      end
      local name = leaf.matcher.name
      if not known[name] then
        names[#names + 1], known[name] = name, true
      end
    end
  end
  return names
end

--- What is wrong with a pending waitpoint's key, once it is known: what the condition names has to be bound, and the other way
--- round.
function conditions.pending_key_fault(condition, key)
  local root = condition.root
  if root.kind == "single" then
    return root.waitpointKey ~= key and "waitpoint_key_mismatch" or nil
  end
  if root.kind ~= "composite" then
    return nil
  end
  local is_named = false
  for _, leaf in ipairs(condition.leaves) do
    for _, named in ipairs(leaf.keys) do
      if named ~= key then
        return "referenced_waitpoint_key_missing_binding: " .. named
      end
      is_named = true
    end
  end
  return not is_named and "extra_binding_not_referenced_by_condition: " .. key or nil
end
