-- KEYS[1] session. The server's time, and the session. For a cluster, where TIME alone goes to any server.
return {redis.call('TIME'), redis.call('GET', KEYS[1])}
