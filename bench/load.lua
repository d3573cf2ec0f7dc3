-- What wrk sends. Arguments: what (update, updates, line, page), a word of this run, users, updates a request,
-- a file with a line for each who sends (an id and credentials, or the word any and a service's key), and how many
-- requests a second all connections send together (0: as many as are answered). What falls behind is made up for;
-- the time of an answer is from when its request was sent, not from when it was due.
-- Each action is sent once. Prints one line of JSON.

local ffi = require("ffi")
local word, users, many, senders, count = "", 0, 1, {}, 0

ffi.cdef("typedef struct { long s, us; } moment; int gettimeofday(moment *, void *);")
local moment = ffi.new("moment")

local function now()
  ffi.C.gettimeofday(moment, nil)
  return tonumber(moment.s) * 1e3 + tonumber(moment.us) / 1e3
end

local function post(path, credentials, body)
  return "POST " .. path .. " HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer "
    .. credentials .. "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

local function action(user)
  count = count + 1
  return '{"userId":"' .. user .. '","actionId":"step:' .. word .. count .. '"}'
end

local function anybody() return "user-" .. math.random(0, users - 1) end

local function update()
  local one = senders[math.random(#senders)]
  return post("/update-score", one[2], action(one[1] == "any" and anybody() or one[1]))
end

local function updates()
  local list = {}
  for n = 1, many do list[n] = action(anybody()) end
  return post("/update-scores", senders[1][2], "[" .. table.concat(list, ",") .. "]")
end

local function line() return "GET /boards/main/users/" .. anybody() .. " HTTP/1.1\r\nHost: bench\r\n\r\n" end

function init(args)
  word, users, many = args[2], tonumber(args[3]), tonumber(args[4])
  math.randomseed(#word + users)
  for one in io.lines(args[5]) do senders[#senders + 1] = {string.match(one, "(%S+) (%S+)")} end
  request = ({update = update, updates = updates, line = line})[args[1]]
  local rate, start, turns = tonumber(args[6]), now(), 0
  if rate > 0 then
    delay = function()
      turns = turns + 1
      return math.max(0, start + turns * 1e3 / rate - now())
    end
  end
end

function done(summary, latency)
  local bad = summary.errors
  io.write(string.format('{"requests":%d,"seconds":%f,"refused":%d,"broken":%d,"p50":%f,"p99":%f}\n',
    summary.requests, summary.duration / 1e6, bad.status, bad.connect + bad.read + bad.write + bad.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
