-- What every script of the board shares: names of keys, the form of values, ranks.
-- It stands before the text of each script (server.py). The opening comment of __init__.py says why it is so.
--
-- KEYS[1] is the meta key, "scoreboard:{board:period}:meta". All other keys are made from it here, with the
-- same hash tag, so that they lie in the same slot of a cluster: which ones exist, only meta knows.
-- ARGV[1] is the shape (form of the data and order), ARGV[2] the rank mode; the rest is each script's own.
-- Numbers are never turned into Lua's doubles and back into text: versions are digits of one width and compare
-- as text, scores go as text to ZADD and ZCOUNT.

local WIDTH = 19  -- digits of an accept_no: 2^63 has 19
local CHUNK = 1000  -- users a bulk command: Lua's stack holds 8,000 values for unpack, a user takes two
local sub, find, byte = string.sub, string.find, string.byte
local FIELD, LINE = '\31', '\30'  -- between fields and lines; no user id or name holds a control character

local meta = KEYS[1]
local base = sub(meta, 1, -5)  -- without "meta"
local shape, mode = ARGV[1], ARGV[2]
local ascending = find(shape, ':asc:', 1, true) ~= nil
local stepped = find(shape, ':steps', 1, true) ~= nil

local function keys_of(generation)
  local name = base .. generation
  return name .. ':rank', name .. ':users', name .. ':steps'
end

-- A stored value is changed, and unless it is a tombstone: reached, score, FIELD, name.
-- Gives reached, score, and where the name begins; nothing for a tombstone or for what is not there.
local function entry(value)
  if not value or #value == WIDTH then return end
  local stop = find(value, FIELD, 2 * WIDTH + 1, true)
  if not stop then return end  -- damaged by hand; the checker mends it
  return sub(value, WIDTH + 1, 2 * WIDTH), sub(value, 2 * WIDTH + 1, stop - 1), stop + 1
end

-- The score as the sorted set keeps it: the best is the lowest, whatever the board's order.
local function key_of(score)
  if ascending or score == '0' then return score end
  if byte(score) == 45 then return sub(score, 2) end
  return '-' .. score
end

-- The displayed rank of an entry, from 1.
local function rank_of(generation, member, score)
  local ranking, _, steps = keys_of(generation)
  if mode == 'competition' then
    return redis.call('ZCOUNT', ranking, '-inf', '(' .. key_of(score)) + 1
  end
  local place
  if mode == 'dense' then
    place = redis.call('ZRANK', steps, key_of(score))
  else
    place = redis.call('ZRANK', ranking, member)
  end
  return place and place + 1 or 0
end

-- The displayed ranks of some users, 0 for those without an entry.
local function ranks_of(generation, names)
  local ranks = {}
  local _, users = keys_of(generation)
  for n, user in ipairs(names) do
    local reached, score = entry(redis.call('HGET', users, user))
    ranks[n] = reached and rank_of(generation, reached .. user, score) or 0
  end
  return ranks
end

-- The values of the users of these members.
local function values_of(users, members)
  if #members == 0 then return {} end
  local names = {}
  for n, member in ipairs(members) do names[n] = sub(member, WIDTH + 1) end
  return redis.call('HMGET', users, unpack(names))
end

-- Members of the ranking with their values, as lines: user, name, score; and how many have no value. None has,
-- unless a key was evicted or deleted by hand.
local function lines_of(members, values)
  local lines, missing = {}, 0
  for n, value in ipairs(values) do
    local _, score, name = entry(value)
    if score then
      lines[n] = LINE .. sub(members[n], WIDTH + 1) .. FIELD .. sub(value, name) .. FIELD .. score
    else
      lines[n] = ''
      missing = missing + 1
    end
  end
  return table.concat(lines), missing
end
