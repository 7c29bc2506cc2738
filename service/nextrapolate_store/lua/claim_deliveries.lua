-- Take webhooks that are due, to tell them.
--
-- ARGV    1 how many, 2 how long nobody else may take them (ms)
-- reply   pairs of a job's id and the number of the attempt
-- keeps   Two processes never tell a webhook at the same time. One that dies over it leaves it due.
local now, due = now_ms(), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key.deliveries, '-inf', now, 'LIMIT', 0, ARGV[1])) do
  redis.call('ZADD', key.deliveries, now + tonumber(ARGV[2]), id)
  table.insert(due, { id, redis.call('HINCRBY', key.job .. id, 'delivery', 1) })
end
return due
