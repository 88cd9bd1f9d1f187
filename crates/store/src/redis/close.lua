-- KEYS[1] session; ARGV 1 account, or '' for any. Whether there was such a session of this account.
if ARGV[1] ~= '' and redis.call('HGET', KEYS[1], 'a') ~= ARGV[1] then
    return 0
end
return redis.call('UNLINK', KEYS[1])
