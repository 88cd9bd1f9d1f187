-- KEYS[1] session; ARGV 1 when Redis may forget it or '', then names and values of its fields.
-- What is there stays as it is.
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'v', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)),
    unpack(ARGV, 2))
if ARGV[1] ~= '' then
    redis.call('PEXPIREAT', KEYS[1], ARGV[1])
end
return 1
