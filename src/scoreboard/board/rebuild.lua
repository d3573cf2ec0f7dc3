-- The four steps of a rebuild. ARGV: 1 shape, 2 mode, 3 step, 4 generation that is being built, then:
--
-- begin    5 database, 6 lease in ms, partition, upto, partition, upto, ...
-- load     5 chunks loaded before, 6 lease in ms, rows (user, value, ...)
-- swap     5 chunks loaded before, 6 epoch, 7 at, 8 top, 9 channel
-- abandon
--
-- Answers 1, or 0 if the rebuild may not begin or is no longer this one's to go on with.

local building = ARGV[4]

-- There is nothing that can be followed: claim to know no more than the database did before the rebuild.
local function start_over(generation)
  if generation then forget(generation) end
  redis.call('HDEL', meta, 'generation')
  for _, field in ipairs(redis.call('HKEYS', meta)) do
    if find(field, '^upto:') or find(field, '^chain:') then redis.call('HDEL', meta, field) end
  end
end

-- A position that no script has written would stay for ever, for nothing that is written is beyond it.
local function drop_damaged_positions()
  for _, field in ipairs(redis.call('HKEYS', meta)) do
    if find(field, '^upto:') then
      local value = redis.call('HGET', meta, field)
      if not find(field, '^upto:%d+$') or #value ~= WIDTH or find(value, '%D') then
        redis.call('HDEL', meta, field)
      end
    end
  end
end

local function lend(lease)
  redis.call('HSET', meta, 'lease', string.format('%.0f', now() + lease))
end

if ARGV[3] == 'begin' then
  if under_construction() then return 0 end
  local found = redis.call('HMGET', meta, 'generation', 'database', 'shape')
  if not found[1] or found[2] ~= ARGV[5] or found[3] ~= shape then start_over(found[1]) end
  drop_damaged_positions()
  for i = 7, #ARGV, 2 do redis.call('HSETNX', meta, 'upto:' .. ARGV[i], ARGV[i + 1]) end
  redis.call('HSET', meta, 'database', ARGV[5], 'shape', shape, 'building', building, 'loaded', '0')
  lend(tonumber(ARGV[6]))
  return 1
end

if redis.call('HGET', meta, 'building') ~= building then return 0 end
if ARGV[3] == 'abandon' then
  abandon()
  return 1
end

-- "loaded" tells when the server has lost a chunk (it came back with what it had some seconds ago).
if not under_construction() then return 0 end
local loaded = redis.call('HGET', meta, 'loaded')
if ARGV[3] == 'load' and tonumber(loaded) == ARGV[5] + 1 then return 1 end  -- it was, and nobody heard the answer
if loaded ~= ARGV[5] then return 0 end
if ARGV[3] == 'load' then
  write(building, 7)
  expire(building, tonumber(ARGV[6]))
  redis.call('HINCRBY', meta, 'loaded', 1)
  lend(tonumber(ARGV[6]))
  return 1
end

local old = redis.call('HGET', meta, 'generation')
redis.call('HSET', meta, 'generation', building, 'at', ARGV[7])
redis.call('HDEL', meta, 'building', 'lease', 'loaded')
for _, key in ipairs({keys_of(building)}) do redis.call('PERSIST', key) end
show(building, tonumber(ARGV[8]), ARGV[7], ARGV[9], ARGV[6])
if old then forget(old) end
return 1
