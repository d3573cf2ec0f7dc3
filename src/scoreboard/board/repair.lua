-- Repair: what differs from the database is forgotten, if it still is what was seen; then the database's rows are
-- written as ever, by version. ARGV: 1 shape, 2 mode, 3 database, 4 channel, 5 at, 6 top, 7 generation that was seen,
-- 8 how many things differ, for each: user, the user's value, a member of the ranking; then rows (user, value, ...).
-- Answers 1, or 0 if another generation is shown by now.

local found = redis.call('HMGET', meta, 'generation', 'database', 'shape')
local generation = found[1]
if generation ~= ARGV[7] or found[2] ~= ARGV[3] or found[3] ~= shape then return 0 end
local ranking, users, steps = keys_of(generation)
local rows = 9 + 3 * tonumber(ARGV[8])
local same, left = {}, {}

local function leave(member)
  local key = redis.call('ZSCORE', ranking, member)
  if key then
    left[key] = true
    redis.call('ZREM', ranking, member)
  end
end

for i = 9, rows - 1, 3 do
  local user = ARGV[i]
  if same[user] == nil then
    local value = redis.call('HGET', users, user)
    same[user] = (value or '') == ARGV[i + 1]
    local reached = entry(value)
    if same[user] and reached then leave(reached .. user) end
  end
  if same[user] then
    leave(ARGV[i + 2])
    redis.call('HDEL', users, user)
  end
end
if stepped then step(ranking, steps, left, {}) end
local changed = write(generation, rows)
redis.call('HSET', meta, 'at', ARGV[5])
show(generation, tonumber(ARGV[6]), ARGV[5], ARGV[4], '')
if #changed > 0 then redis.call('PUBLISH', ARGV[4] .. ':users', table.concat(changed, LINE)) end
return 1
