-- The compare-and-set; means `Session::swapped`.
--
-- KEYS[1] session
-- ARGV    1 operation, 2 earliest time, 3-5 expected generation, handed_out_at, confirmed, 6-7 new generation, confirmed,
--         8-9 lifespan and max_lifetime or '', 10 address or '', 11 how long a dead session is kept
-- Answer  {'1', time} if made; {'0', the record} if it has moved on; {} if there is none.
--
-- An operation that was made, and whose answer was lost, is answered as made. Numbers of Lua are exact up to 2^53; what is
-- beyond ('inf') is for ever.
local s = redis.call('HMGET', KEYS[1], 'g', 'h', 'c', 'b', 'e', 'l', 'o', 'a')
if not s[1] then
    return {}
end
if s[7] == ARGV[1] then
    return {'1', s[6]}
end
if s[1] ~= ARGV[3] or s[2] ~= ARGV[4] or s[3] ~= ARGV[5] then
    return {'0', s[8], s[1], s[2], s[3], s[4], s[5], s[6]}
end

local time = redis.call('TIME')
local now = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2]), tonumber(s[6]))
local at = string.format('%.0f', now)
local confirmed = s[3]
if tonumber(ARGV[7]) > tonumber(confirmed) then
    confirmed = ARGV[7]
end
local set = {'g', ARGV[6], 'c', confirmed, 'l', at, 'o', ARGV[1]}
if ARGV[10] ~= '' then
    set[9], set[10] = 'i', ARGV[10]
end
if ARGV[8] ~= '' then
    local function plus(from, span)
        return span == 'inf' and '9223372036854775807' or string.format('%.0f', from + span)
    end
    local ends, cap = plus(now, ARGV[8]), plus(s[4], ARGV[9])
    if tonumber(cap) < tonumber(ends) then
        ends = cap
    end
    if tonumber(s[5]) > tonumber(ends) then
        ends = s[5]
    end
    local next = #set
    set[next + 1], set[next + 2], set[next + 3], set[next + 4] = 'h', at, 'e', ends
    if tonumber(ends) < 2 ^ 52 then
        redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ends + ARGV[11]))
    else
        redis.call('PERSIST', KEYS[1])
    end
end
redis.call('HSET', KEYS[1], unpack(set))
return {'1', at}
