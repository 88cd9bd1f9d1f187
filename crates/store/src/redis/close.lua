-- KEYS[1] session; ARGV 1 account as it is kept, or '' for any. Whether there was such a session of this account.
if ARGV[1] ~= '' then
    local found = redis.call('GET', KEYS[1])
    if not found or string.sub(found, 2, 9) ~= ARGV[1] then
        return 0
    end
end
return redis.call('UNLINK', KEYS[1])
