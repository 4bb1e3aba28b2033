-- Who is alive. Every cell keeps all workers, so that each tells by itself what its work waits for: a hash of
-- `<namespace>\n<instance id>` to JSON with workerId, lanes and capabilities (lists as JSON of their own), ttlMs,
-- registeredAtMs and heartbeatAtMs; beside it an index of `<instance id>\n<namespace>` in the order of their bytes.

--- How long a caller that claims without registering is kept.
local EPHEMERAL_TTL_MS = 30000
--- Claims of one process refresh their worker's registration at most this often.
local HEARTBEAT_INTERVAL_MS = 10000
--- Work that one registration may wake in one step; portions see to the rest.
local WOKEN_MAX = 500
local PAGE = 100

local function workers_of(tx)
  return tx.base .. ":workers"
end

local function index_of(tx)
  return tx.base .. ":instances"
end

local function field_of(namespace, instance_id)
  return namespace .. "\n" .. instance_id
end

local function save(tx, namespace, instance_id, worker)
  redis.call("HSET", workers_of(tx), field_of(namespace, instance_id), text.encode(worker))
end

--- A worker that is alive now: instance_id, lanes and capabilities as sets, lane_list in the order it was registered with.
local function present(instance_id, worker)
  local lanes = cjson.decode(worker.lanes)
  return {
    instance_id = instance_id,
    lanes = capabilities.set_of(lanes),
    lane_list = lanes,
    capabilities = capabilities.set_of(cjson.decode(worker.capabilities)),
  }
end

function registry.is_live(worker, now)
  return worker.heartbeatAtMs + worker.ttlMs > now
end

--- What is stored of an instance, alive or not; nothing where it is unknown.
function registry.find(tx, namespace, instance_id)
  local stored = redis.call("HGET", workers_of(tx), field_of(namespace, instance_id))
  return stored and cjson.decode(stored) or nil
end

--- Namespaces that know an instance. No id has a line break in it, so that its entries stand together.
local function namespaces_of(tx, instance_id)
  local entries = redis.call("ZRANGE", index_of(tx), "[" .. instance_id .. "\n", "(" .. instance_id .. "\11", "BYLEX")
  local namespaces = {}
  for index, entry in ipairs(entries) do
    namespaces[index] = entry:sub(#instance_id + 2)
  end
  return namespaces
end

--- Whether the instance lives in any namespace.
function registry.lives_anywhere(tx, instance_id, now)
  for _, namespace in ipairs(namespaces_of(tx, instance_id)) do
    local worker = registry.find(tx, namespace, instance_id)
    if worker and registry.is_live(worker, now) then
      return true
    end
  end
  return false
end

--- All live workers of a namespace.
function registry.live(tx, namespace)
  local live = {}
  local all, prefix = redis.call("HGETALL", workers_of(tx)), field_of(namespace, "")
  for i = 1, #all, 2 do
    if all[i]:sub(1, #prefix) == prefix then
      local worker = cjson.decode(all[i + 1])
      if registry.is_live(worker, tx.now) then
        live[#live + 1] = present(all[i]:sub(#prefix + 1), worker)
      end
    end
  end
  return live
end

--- Live workers by instance and namespace, with all of one instance where there is room for the first of it. `namespace` may
--- be nothing for all; `after`: the instance behind which to begin, or nothing.
--- @return a list of { instance id, namespace, JSON }, and whether there are more
function registry.list(tx, namespace, after, limit)
  local found, from = {}, 0
  -- Behind whatever begins with that id and a line break.
  local first = after and "(" .. after .. "\11" or "-"
  repeat
    local entries = redis.call("ZRANGE", index_of(tx), first, "+", "BYLEX", "LIMIT", from, PAGE)
    for _, entry in ipairs(entries) do
      local instance_id, of_namespace = entry:match("^([^\n]*)\n(.*)$")
      local stored = (not namespace or of_namespace == namespace)
        and redis.call("HGET", workers_of(tx), field_of(of_namespace, instance_id))
      if stored and registry.is_live(cjson.decode(stored), tx.now) then
        if #found >= limit and found[#found][1] ~= instance_id then
          return found, true
        end
        found[#found + 1] = { instance_id, of_namespace, stored }
      end
    end
    from = from + PAGE
  until #entries < PAGE
  return found, false
end

--- Work that waited for these capabilities goes back into the order, as much as fits one step.
local function wake_covered(tx, namespace, lanes)
  local live
  for id = 1, routes.count(tx) do
    if redis.call("EXISTS", record.index_of(tx, id, state.HOME.blocked_route)) == 1 then
      local route = routes.find(tx, id)
      if route.namespace == namespace and lanes[route.lane] then
        live = live or registry.live(tx, namespace)
        if capabilities.is_covered(route.required, route.lane, live) then
          unblock.unblock_route(tx, route, WOKEN_MAX)
        end
      end
    end
  end
end

--- Records or replaces a worker, and wakes what waited for it. `worker`: namespace, instance_id, worker_id, ttl; lanes and
--- capabilities as JSON.
function registry.write(tx, worker, registered_at)
  save(tx, worker.namespace, worker.instance_id, {
    workerId = worker.worker_id,
    lanes = worker.lanes,
    capabilities = worker.capabilities,
    ttlMs = worker.ttl,
    registeredAtMs = registered_at,
    heartbeatAtMs = tx.now,
  })
  redis.call("ZADD", index_of(tx), 0, field_of(worker.instance_id, worker.namespace))
  wake_covered(tx, worker.namespace, capabilities.set_of(cjson.decode(worker.lanes)))
end

--- Extends a live worker by its own time. @return until when, or nothing where it is not alive
function registry.beat(tx, namespace, instance_id)
  local worker = registry.find(tx, namespace, instance_id)
  if not worker or not registry.is_live(worker, tx.now) then
    return nil
  end
  worker.heartbeatAtMs = tx.now
  save(tx, namespace, instance_id, worker)
  return tx.now + worker.ttlMs
end

--- A claim proves that its worker lives. A caller that never registered is kept as an ephemeral worker, so that its lanes and
--- capabilities count too. `presence`: as for registry.write, without ttl; written_at: when this process last did this for
--- it, or nothing.
--- @return whether it was written
function registry.note_claim(tx, presence)
  -- Also after the clock was moved back.
  if presence.written_at and math.abs(tx.now - presence.written_at) < HEARTBEAT_INTERVAL_MS then
    return false
  end
  local known = false
  for _, namespace in ipairs(namespaces_of(tx, presence.instance_id)) do
    known = registry.beat(tx, namespace, presence.instance_id) ~= nil or known
  end
  if not known then
    presence.ttl = EPHEMERAL_TTL_MS
    registry.write(tx, presence, tx.now)
  end
  return true
end

--- @return whether it was alive
function registry.remove(tx, namespace, instance_id)
  local worker = registry.find(tx, namespace, instance_id)
  redis.call("HDEL", workers_of(tx), field_of(namespace, instance_id))
  redis.call("ZREM", index_of(tx), field_of(instance_id, namespace))
  return worker ~= nil and registry.is_live(worker, tx.now)
end

--- Forgets up to `limit` of those whose time is over. @return how many
function registry.forget_dead(tx, limit)
  local forgotten = 0
  local all = redis.call("HGETALL", workers_of(tx))
  for i = 1, #all, 2 do
    if forgotten == limit then
      break
    end
    if not registry.is_live(cjson.decode(all[i + 1]), tx.now) then
      registry.remove(tx, all[i]:match("^([^\n]*)\n(.*)$"))
      forgotten = forgotten + 1
    end
  end
  return forgotten
end

--- Marks what an instance holds as lapsed, whatever time it had left. @return nothing
function registry.expire_leases(tx, namespace, instance_id, reason)
  local HOME = state.HOME
  local is_its_own = {}
  local function holds(holder)
    if is_its_own[holder] == nil then
      is_its_own[holder] = holders.name(tx, holder):match("\n(.*)$") == instance_id
    end
    return is_its_own[holder]
  end
  for id = 1, routes.count(tx) do
    local index = record.index_of(tx, id, HOME.active)
    local refs = routes.find(tx, id).namespace == namespace and redis.call("ZRANGE", index, 0, -1) or {}
    for _, ref in ipairs(refs) do
      local row = record.find_indexed(tx, index, ref)
      if row and row.home == HOME.active and holds(row.holder) then
        lifecycle.mark_lapsed(tx, row, record.now(tx, row), "worker_dead: " .. reason)
        record.save(tx, row)
        lifecycle.ring(tx, row)
      end
    end
  end
end
