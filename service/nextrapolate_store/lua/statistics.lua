-- Read what there is to count, all of one moment.
--
-- reply   {counters as HGETALL gives them, how many jobs are queued, how long the first has waited since it
--          came, or came back (ms), whether Redis takes writes}
local first = redis.call('ZRANGE', key.queued, 0, 0, 'WITHSCORES')
local waited = first[2] and now_ms() - tonumber(get(first[1], 'queued_at') or first[2]) or 0
local written = redis.pcall('SET', key.ping, 1)
return { redis.call('HGETALL', key.counters), redis.call('ZCARD', key.queued), waited, written.ok and 1 or 0 }
