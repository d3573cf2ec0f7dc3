-- What the scripts that write share: rows into a generation, the frame, the lease of a rebuild.

-- Milliseconds. Only the server's clock judges a lease.
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The distinct scores of a dense board follow the ranking: "left" may have lost its last entry, "taken" has one.
local function step(ranking, steps, left, taken)
  local come, gone = {}, {}
  for key in pairs(taken) do
    come[#come + 1] = key
    come[#come + 1] = key
  end
  for key in pairs(left) do
    if not taken[key] and redis.call('ZCOUNT', ranking, key, key) == 0 then gone[#gone + 1] = key end
  end
  if #come > 0 then redis.call('ZADD', steps, unpack(come)) end
  if #gone > 0 then redis.call('ZREM', steps, unpack(gone)) end
end

-- Write the rows in ARGV from "first" on (user, value, user, value, ...; each user once) into a generation,
-- unless what is there is as new. Whatever was done before, the newest version of each user stands afterwards.
-- Answers the users whose rows were taken.
local function write(generation, first)
  local ranking, users, steps = keys_of(generation)
  local changed, count = {}, 0  -- each list's length is counted: # searches for its end each time
  for start = first, #ARGV, 2 * CHUNK do
    local names, last = {}, math.min(start + 2 * CHUNK, #ARGV) - 1
    for i = start, last, 2 do names[(i - start) / 2 + 1] = ARGV[i] end
    local stored = redis.call('HMGET', users, unpack(names))
    local set, gone, come, left, taken = {}, {}, {}, {}, {}
    local sets, goes, comes = 0, 0, 0
    for n, user in ipairs(names) do
      local old, new = stored[n], ARGV[start + 2 * n - 1]
      if not old or old < sub(new, 1, WIDTH) then  -- what is as new goes on behind the same digits
        set[sets + 1], set[sets + 2] = user, new
        sets, count = sets + 2, count + 1
        changed[count] = user
        local old_reached, old_score = entry(old)
        local reached, score = entry(new)
        if reached ~= old_reached or score ~= old_score then
          if old_reached then
            if old_reached ~= reached then
              goes = goes + 1
              gone[goes] = old_reached .. user
            end
            if stepped then left[key_of(old_score)] = true end
          end
          if reached then
            local key = key_of(score)
            come[comes + 1], come[comes + 2] = key, reached .. user
            comes = comes + 2
            if stepped then taken[key] = true end
          end
        end
      end
    end
    if goes > 0 then redis.call('ZREM', ranking, unpack(gone)) end
    if comes > 0 then redis.call('ZADD', ranking, unpack(come)) end
    if sets > 0 then redis.call('HSET', users, unpack(set)) end
    if stepped then step(ranking, steps, left, taken) end
  end
  return changed
end

-- If the visible top changed, or with a new epoch in any case: count the frame, keep it, publish it.
-- A frame is epoch, seq, at, total, then each line's user, name, score.
local function show(generation, top, at, channel, epoch)
  local ranking, users = keys_of(generation)
  local members = redis.call('ZRANGE', ranking, 0, top - 1)
  local text = lines_of(members, values_of(users, members))
  if epoch ~= '' then
    redis.call('HSET', meta, 'epoch', epoch, 'seq', 0)
  else
    local frame = redis.call('HGET', meta, 'frame')
    local from = frame and find(frame, LINE, 1, true)
    if frame and text == (from and sub(frame, from) or '') then return end
    epoch = redis.call('HGET', meta, 'epoch')
  end
  local seq = string.format('%.0f', redis.call('HINCRBY', meta, 'seq', 1))
  local total = redis.call('ZCARD', ranking)
  local frame = table.concat({epoch, seq, at, total}, FIELD) .. text
  redis.call('HSET', meta, 'frame', frame)
  redis.call('PUBLISH', channel, frame)
end

local function forget(generation)
  redis.call('UNLINK', keys_of(generation))
end

-- End the rebuild that is under way, if there is one, and what it has built.
local function abandon()
  local building = redis.call('HGET', meta, 'building')
  if building then
    redis.call('HDEL', meta, 'building', 'lease', 'loaded')
    forget(building)
  end
end

-- The generation that is being built, or false. One whose lease ran out is ended here.
local function under_construction()
  local found = redis.call('HMGET', meta, 'building', 'lease')
  if not found[1] then return false end
  if tonumber(found[2]) > now() then return found[1] end
  abandon()
  return false
end

local MARGIN = 60000  -- ms by which what is being built outlives its lease: only meta ever ends a rebuild

-- Keep what is being built for as long as its lease runs and no longer, should its builder die.
local function expire(building, lease)
  for _, key in ipairs({keys_of(building)}) do redis.call('PEXPIRE', key, lease + MARGIN) end
end
