-- Apply a batch of rows to the current generation and to one that is being built: all or nothing.
--
-- ARGV: 1 shape, 2 mode, 3 database, 4 channel, 5 at, 6 top, 7 partition, 8 expect, 9 upto, 10 epoch,
--       11 chain as it must be, 12 chain as it shall be, 13 lease in ms, 14 how many wanted users, those users,
--       rows (user, value, ...). Empty text: not given. Without "at" no frame is made.
-- Answers false if the board is not where the caller believes (nothing is changed then), else the displayed
-- ranks of the wanted users: before, after, before, after, ...; 0 is no rank.

local position, chain = 'upto:' .. ARGV[7], 'chain:' .. ARGV[7]
local found = redis.call('HMGET', meta, 'generation', 'database', 'shape', position, chain)
local generation = found[1]
local building = under_construction()
if not (generation or building) or found[2] ~= ARGV[3] or found[3] ~= shape then return false end
if ARGV[8] ~= '' and found[4] ~= ARGV[8] then return false end
if ARGV[11] ~= '' and found[5] ~= ARGV[11] then return false end

local wanted = {}
for i = 15, 14 + tonumber(ARGV[14]) do wanted[#wanted + 1] = ARGV[i] end
local first = 15 + #wanted
local before, after = {}, {}

if building then
  write(building, first)
  expire(building, tonumber(ARGV[13]))
end
if generation then
  before = ranks_of(generation, wanted)
  local changed = write(generation, first)
  after = #changed > 0 and ranks_of(generation, wanted) or before
  if ARGV[5] ~= '' and (#changed > 0 or ARGV[10] ~= '') then
    redis.call('HSET', meta, 'at', ARGV[5])
    show(generation, tonumber(ARGV[6]), ARGV[5], ARGV[4], ARGV[10])
  end
  if #changed > 0 then redis.call('PUBLISH', ARGV[4] .. ':users', table.concat(changed, LINE)) end
end

if ARGV[9] ~= '' and (not found[4] or found[4] < ARGV[9]) then redis.call('HSET', meta, position, ARGV[9]) end
if ARGV[12] ~= '' then
  redis.call('HSET', meta, chain, ARGV[12])
elseif ARGV[11] ~= '' then
  redis.call('HDEL', meta, chain)
end

local ranks = {}
for n = 1, #wanted do
  ranks[2 * n - 1] = before[n] or 0
  ranks[2 * n] = after[n] or 0
end
return ranks
