-- KEYS[1] session, ARGV fields. The server's time, and their values. For a cluster, where TIME alone goes to any server.
local time = redis.call('TIME')
return {time, redis.call('HMGET', KEYS[1], unpack(ARGV))}
