-- Read what there is to count, all of one moment.
--
-- reply   {counters as HGETALL gives them, how many jobs are queued, how long at most one of the first 1,000
--          has waited since it came, or came back (ms), whether Redis takes writes}
local waited, now = 0, now_ms()
-- The first has waited longest only if it never came back: its place goes by when it was submitted.
for _, id in ipairs(redis.call('ZRANGE', key.queued, 0, 999)) do
  waited = math.max(waited, now - tonumber(get(id, 'queued_at') or now))
end
local written = redis.pcall('SET', key.ping, 1)
return { redis.call('HGETALL', key.counters), redis.call('ZCARD', key.queued), waited, written.ok and 1 or 0 }
