-- KEYS[1] session; ARGV 1 operation, 2 when Redis may forget it or '', then names and values of its fields.
-- 1 if it was made, also by an earlier attempt of the same operation; 0 if there is another one of this name.
local made_by = redis.call('HGET', KEYS[1], 'o')
if made_by then
    return made_by == ARGV[1] and 1 or 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'o', ARGV[1], 'v', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)),
    unpack(ARGV, 3))
if ARGV[2] ~= '' then
    redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
return 1
