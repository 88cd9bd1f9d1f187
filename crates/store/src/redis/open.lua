-- KEYS[1] session; ARGV 1 what is kept of it, 2 when Redis may forget it, if ever. What is there stays as it is.
if not redis.call('SET', KEYS[1], ARGV[1], 'NX') then
    return 0
end
if ARGV[2] then
    redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
return 1
