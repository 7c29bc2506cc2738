-- Read what there is to count, all of one moment.
--
-- reply   {counters as HGETALL gives them, how many jobs are queued, how long the oldest has waited (ms),
--          whether Redis takes writes}
local oldest = redis.call('ZRANGE', key.queued, 0, 0, 'WITHSCORES')
local waited = oldest[2] and now_ms() - tonumber(oldest[2]) or 0
local written = redis.pcall('SET', key.ping, 1)
return { redis.call('HGETALL', key.counters), redis.call('ZCARD', key.queued), waited, written.ok and 1 or 0 }
