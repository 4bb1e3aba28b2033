-- What attempts put out: appending, reading, and telling which of many streams have news.

--- Arguments of a frame: mode, header, "<ttl> <floor> <ceiling> <alpha>" where it is best effort, payload.
local FRAME_ARGS = 4

local function read_frames(args, from)
  local list, patches = {}, 0
  for at = from, #args, FRAME_ARGS do
    local frame = { mode = tonumber(args[at]), header = args[at + 1], payload = args[at + 3] }
    if frame.mode == frames.MODE.best_effort then
      local ttl, floor, ceiling, alpha = args[at + 2]:match("^(%S+) (%S+) (%S+) (%S+)$")
      frame.live = {
        ttl = tonumber(ttl),
        floor = tonumber(floor),
        ceiling = tonumber(ceiling),
        alpha = tonumber(alpha),
      }
    elseif frame.mode == frames.MODE.summary then
      patches = patches + 1
    end
    list[#list + 1] = frame
  end
  return list, patches
end

local function is_live_only(list)
  for _, frame in ipairs(list) do
    if frame.mode ~= frames.MODE.best_effort then
      return false
    end
  end
  return true
end

--- Appends frames, all or none. Patches are merged by the caller, for the server's JSON keeps neither empty lists nor all
--- digits; what he merged into must be what is stored, and where it is not, nothing is written and he is told that.
--- Arguments: ref, the fence, the caller's numbers of the first and the final frame or nothing, the SHA-1 of the document that
--- was merged into, an empty one where there was none; the document that the patches made of it, or nothing to be told; then
--- the frames.
--- Commands: 4 without patches, 1 for each frame, 2 or 3 for each mode that is trimmed.
--- @return "appended", then of the last frame: its id in two numbers, count, version; or "document" and what is stored
operation.write("append", function(tx, args)
  local ref, own = args[1], operation.read_fence(args, 2)
  local row = record.find(tx, ref)
  if not row then
    return answer.not_found(ref)
  end
  local now = record.now(tx, row)
  local refusal = frames.check_append(row, own, now)
  if refusal then
    return refusal
  end
  local meta = streams.of_row(tx, row)
  local final_seq = tonumber(args[7])
  local verdict = frames.check_caller_seq(meta.caller_seq, tonumber(args[6]), final_seq)
  if verdict == "repeat" then
    return { "appended", meta.caller_ms, meta.caller_n, meta.caller_count, meta.caller_version }
  end
  if verdict ~= "append" then
    return verdict
  end
  local list, patches = read_frames(args, 10)
  if patches > 0 then
    local stored = streams.document(tx, ref, row.attempt)
    local base = stored and redis.sha1hex(stored) or ""
    if args[9] == "" or args[8] ~= base then
      return { "document", answer.or_false(stored) }
    end
  end

  streams.append(tx, row, meta, list, patches > 0 and args[9] or nil, final_seq, now)
  session.ring_stream(tx, ref, row.attempt .. (is_live_only(list) and " live" or ""))
  return { "appended", meta.last_ms, meta.last_n, meta.frame_count, meta.summary_version }
end)

--- The row, or nothing where it is missing or of another namespace.
local function find(tx, args)
  return (record.require(tx, args[1], args[2]))
end

--- Frames of a range and how the stream stands, of one moment. Arguments: ref, namespace, attempt, the id behind which to begin
--- in two numbers, the last id, "1" to see best-effort frames, how many.
--- @return nothing where there is no such execution; else number of events, when and by what it was closed, the milliseconds
--- until the lease runs out that keeps it open, the last id, of each mode the last trimmed id and how many are retained, the
--- values of frames as streams.read has them
operation.read("read_stream", function(tx, args)
  local row = find(tx, args)
  if not row then
    return {}
  end
  local attempt, now = tonumber(args[3]), record.now(tx, row)
  local meta = streams.find(tx, row.ref, attempt)
  local closed = streams.end_of(tx, row, attempt, now)
  local is_held = row.home == state.HOME.active and attempt == row.attempt
  local answer_list = {
    row.events,
    closed and closed.closedAtMs or false,
    closed and closed.closedReason or false,
    is_held and row.lease_expires_at - now or false,
  }
  if not meta then
    return answer_list
  end
  local function tell(value)
    answer_list[#answer_list + 1] = value
  end
  tell(meta.last_ms)
  tell(meta.last_n)
  for mode = 0, 2 do
    tell(meta.trimmed_ms[mode])
    tell(meta.trimmed_n[mode])
    tell(meta.retained[mode])
  end
  tell(streams.read(tx, row.ref, attempt, meta, {
    after_ms = tonumber(args[4]),
    after_n = tonumber(args[5]),
    to = args[6],
    sees_all = args[7] == "1",
    limit = tonumber(args[8]),
  }, now))
  return answer_list
end)

--- Arguments: ref, namespace, attempt. @return nothing where there is none; else the document, its version, when it was first
--- patched, and when last
operation.read("read_summary", function(tx, args)
  local row = find(tx, args)
  local meta = row and streams.find(tx, row.ref, args[3])
  if not meta or meta.summary_version == 0 then
    return {}
  end
  return {
    streams.document(tx, row.ref, args[3]) or "",
    meta.summary_version,
    meta.first_applied_at,
    meta.last_updated_at,
  }
end)

--- What tells whether streams have news. Arguments: ref and attempt of each. Commands: 2 for each.
--- @return three numbers of each, see streams.standing
operation.read("stream_standings", function(tx, args)
  local standings = {}
  for at = 1, #args, 2 do
    local events, ms, n = streams.standing(tx, args[at], args[at + 1])
    standings[#standings + 1] = events
    standings[#standings + 1] = ms
    standings[#standings + 1] = n
  end
  return { standings }
end)
