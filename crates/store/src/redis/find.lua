-- KEYS[1] session. The server's time and the fields, in the order in which `record.rs` reads them: account, generation,
-- handed_out_at, confirmed, born, ends, last seen, address, verified (found in the registry); of the account: realm, provider, uid,
-- email, profile, permit (client and until), created, modified.
local time = redis.call('TIME')
return {
    time[1] * 1000 + math.floor(time[2] / 1000),
    redis.call('HMGET', KEYS[1], 'a', 'g', 'h', 'c', 'b', 'e', 'l', 'i', 'v',
        'ar', 'ap', 'au', 'ae', 'af', 'ax', 'ay', 'ac', 'am')
}
