-- KEYS[1] session; ARGV the fields to read. The server's time and the fields.
local time = redis.call('TIME')
return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('HMGET', KEYS[1], unpack(ARGV))}
