-- The session was found in the registry, and this is its account.
--
-- KEYS[1] session; ARGV 1 time of the account's last change, then names and values of the account's fields. An account that
-- is newer than this one is left as it is.
local changed_at = redis.call('HGET', KEYS[1], 'am')
if not changed_at then
    return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'v', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
if tonumber(changed_at) <= tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[1], unpack(ARGV, 2))
end
return 1
