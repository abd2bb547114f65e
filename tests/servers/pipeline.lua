-- wrk: several requests in one write, so that they are pipelined: wrk -s pipeline.lua URL -- BATCHES DEPTH TARGET...
-- After BATCHES writes of all connections together nothing more is sent, so that wrk ends with idle connections.

init = function(args)
  local depth, requests = tonumber(args[2]), {}
  left = tonumber(args[1])
  for i = 1, depth do
    requests[i] = wrk.format("GET", args[3 + (i - 1) % (#args - 2)])
  end
  all = table.concat(requests)
end

delay = function()
  left = left - 1
  return left < 0 and 3600000 or 0
end

request = function() return all end
