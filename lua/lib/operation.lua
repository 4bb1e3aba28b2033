-- Registering functions. Each gets a session and its arguments and returns its answer.

operation.ALL = {}

local function add(name, flags, body)
  operation.ALL[#operation.ALL + 1] = {
    name = name,
    flags = flags,
    run = function(keys, args)
      local tx = session.open(keys[1])
      local is_done, result = pcall(body, tx, args)
      -- What came before a failure stands: its events have been told.
      later.flush(tx)
      if not is_done then
        local message = answer.of_error(result)
        error({ err = message:find("^%u+ ") and message or "ERR " .. message })
      end
      session.close(tx)
      return answer.encode(result)
    end,
  }
end

--- Refused by a server that is out of memory, before anything is written.
function operation.write(name, body)
  add(name, {}, body)
end

--- Allowed at the memory limit as well: what lets a full store drain.
function operation.drain(name, body)
  add(name, { "allow-oom" }, body)
end

function operation.read(name, body)
  add(name, { "no-writes" }, body)
end
