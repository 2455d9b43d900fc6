-- The load: wrk -s load.lua URL -- METHOD BODY_BYTES PATH...
-- Several paths are asked for in turn. One line of JSON with the result is printed at the end.

local prepared, turn = {}, 0

function init(args)
  wrk.method = args[1]
  wrk.body = tonumber(args[2]) > 0 and string.rep("x", tonumber(args[2])) or nil
  wrk.path = args[3]
  if #args == 3 then
    return
  end
  for index = 3, #args do
    prepared[#prepared + 1] = wrk.format(nil, args[index])
  end
  -- Defined only here: wrk calls a global `request` for every request, and repeats one it prepared when there is none.
  request = function()
    turn = turn % #prepared + 1
    return prepared[turn]
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "bytes": %d, "microseconds": %d, "p50": %d, "p99": %d, '
      .. '"errors": {"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
