-- wrk with the requests of a file in turn, each thread beginning at another one, and the result as one line of JSON.
--   wrk -t THREADS -c CONNECTIONS -d SECONDSs -s wrk.lua http://ADDR -- REQUESTS
-- The file is that of the load generator: u32 (little endian) lengths, each followed by a whole HTTP/1.1 request.

local threads = 0

function setup(thread)
   thread:set("number", threads)
   threads = threads + 1
end

function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   local bytes = file:read("*a")
   file:close()
   requests = {}
   local at = 1
   while at <= #bytes do
      local a, b, c, d = bytes:byte(at, at + 3)
      local length = a + 256 * (b + 256 * (c + 256 * d))
      requests[#requests + 1] = bytes:sub(at + 4, at + 3 + length)
      at = at + 4 + length
   end
   next_request = number * 17 % #requests
end

function request()
   next_request = next_request % #requests + 1
   return requests[next_request]
end

function done(summary, latency)
   local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
   io.write(string.format('{"requests": %d, "seconds": %f, "p50_us": %d, "p99_us": %d, "not_ok": %d, "failed": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), summary.errors.status, failed))
end
