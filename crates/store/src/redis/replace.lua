-- The compare-and-set of a whole session: whoever changes one has read it, and says what it becomes.
--
-- KEYS[1] session; ARGV 1 as it was found, 2 as it shall be, 3 when Redis may forget it, '' if never; without it, when it might
-- before. 1 if it was made, else the session as it is, or nothing if there is none.
local found = redis.call('GET', KEYS[1])
if found ~= ARGV[1] then
    return found
end
if not ARGV[3] then
    redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
    return 1
end
redis.call('SET', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then
    redis.call('PEXPIREAT', KEYS[1], ARGV[3])
end
return 1
