-- What is read of a board at one moment. ARGV: 1 shape, 2 mode, 3 question, then:
--
-- page     4 how many, 5 score and 6 member after which it begins (both empty: at the top)
--          answers epoch, seq, at (the last change), total, entries before it, rank of its first line, members
--          and the scores that the ranking has for them, the users' values
-- lines    4 neighbours on each side, users
--          answers seq, then for each user, as text: place, place and rank of the first line, the nearest strictly
--          better score (not on an ordinal board), and the lines as in a frame; '' without an entry, false if
--          a value is missing, '?' if one cannot be read
-- ranks    users
--          answers value ('' without one), rank, value, rank, ...
--
-- states   user, member of the ranking, user, member, ...
--          answers the generation, the positions (partition, upto, ...), then for each pair the user's value and the
--          key of the member, '' for what is not there
--
-- Answers false if there is no board of this shape.

local found = redis.call('HMGET', meta, 'generation', 'shape', 'epoch', 'seq', 'at')
local generation = found[1]
if not generation or found[2] ~= shape then return false end
local ranking, users = keys_of(generation)

-- Does a come after b? Byte by byte, as in the sorted set: Lua's own "<" follows the server's locale.
local function follows(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = byte(a, i), byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

-- How many entries stand at or before (score, member), be there still one or not.
local function count_upto(score, member)
  local key = key_of(score)
  local low = redis.call('ZCOUNT', ranking, '-inf', '(' .. key)
  local high = redis.call('ZCOUNT', ranking, '-inf', key)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if follows(redis.call('ZRANGE', ranking, middle, middle)[1], member) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local function first_rank(members, values)
  local reached, score = entry(values[1])
  return reached and rank_of(generation, members[1], score) or 0
end

local function page(limit, score, member)
  local before = score == '' and 0 or count_upto(score, member)
  local scored = redis.call('ZRANGE', ranking, before, before + limit - 1, 'WITHSCORES')
  local members = {}
  for i = 1, #scored, 2 do members[#members + 1] = scored[i] end
  local values = values_of(users, members)
  local total = redis.call('ZCARD', ranking)
  return {found[3], found[4], found[5], total, before, first_rank(members, values), scored, values}
end

local function surroundings(user, neighbours)
  local reached, score = entry(redis.call('HGET', users, user))
  local place = reached and redis.call('ZRANK', ranking, reached .. user)
  if not place then return '' end
  local first = math.max(place - neighbours, 0)
  local members = redis.call('ZRANGE', ranking, first, place + neighbours)
  local values = values_of(users, members)
  local text, missing = lines_of(members, values)
  if missing > 0 then return false end
  local rank, nearest = first + 1, ''
  if mode ~= 'ordinal' then
    rank = first_rank(members, values)
    local better = redis.call('ZCOUNT', ranking, '-inf', '(' .. key_of(score))
    if better > 0 then
      local _, found = entry(values_of(users, redis.call('ZRANGE', ranking, better - 1, better - 1))[1])
      nearest = found or ''
    end
  end
  return table.concat({place, first, rank, nearest}, FIELD) .. text
end

local function lines()
  local answer = {found[4]}
  for i = 5, #ARGV do
    -- What a hand has damaged must not keep the others from being read.
    local readable, text = pcall(surroundings, ARGV[i], tonumber(ARGV[4]))
    answer[#answer + 1] = readable and text or not readable and '?'
  end
  return answer
end

local function ranks()
  local answer = {}
  for i = 4, #ARGV do
    local value = redis.call('HGET', users, ARGV[i])
    local reached, score = entry(value)
    answer[#answer + 1] = reached and value or ''
    answer[#answer + 1] = reached and rank_of(generation, reached .. ARGV[i], score) or 0
  end
  return answer
end

local function states()
  local positions, whole = {}, redis.call('HGETALL', meta)
  for i = 1, #whole, 2 do
    if find(whole[i], '^upto:') then
      positions[#positions + 1] = sub(whole[i], 6)
      positions[#positions + 1] = whole[i + 1]
    end
  end
  local answer = {generation, positions}
  for i = 4, #ARGV, 2 do
    answer[#answer + 1] = redis.call('HGET', users, ARGV[i]) or ''
    answer[#answer + 1] = redis.call('ZSCORE', ranking, ARGV[i + 1]) or ''
  end
  return answer
end

if ARGV[3] == 'states' then return states() end
if ARGV[3] == 'page' then return page(tonumber(ARGV[4]), ARGV[5], ARGV[6]) end
if ARGV[3] == 'lines' then return lines() end
return ranks()
