-- KEYS[1] a key of its own. Whether it can be written.
redis.call('SET', KEYS[1], '1', 'PX', 1000)
return 1
