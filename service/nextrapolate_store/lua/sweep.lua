-- Forget what is older than it is kept: jobs that ended, their events, idempotency keys.
--
-- ARGV    1 how long a job is kept after its end (ms), 2 how long its events are, 3 how many to look at,
--         4 the time by which the sweep goes (ms)
-- reply   {ids of the jobs that are gone, how many jobs lost their events, how many keys are gone}
-- keeps   A job that has not ended stays. Of one that goes nothing stays, in no index.
local jobs_age, events_age, limit, now = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])

local function oldest(index, until_ms)
  return redis.call('ZRANGEBYSCORE', index, '-inf', until_ms, 'LIMIT', 0, limit)
end

local with_events = oldest(key.events_kept, now - events_age)
for _, id in ipairs(with_events) do
  redis.call('DEL', key.events .. id)
  redis.call('ZREM', key.events_kept, id)
end

local ended = with_records(key.ended, oldest(key.ended, now - jobs_age))
for _, id in ipairs(ended) do
  forget(id)
end

local reservations = oldest(key.idempotency_ends, now)
for _, reservation in ipairs(reservations) do
  redis.call('DEL', reservation)
  redis.call('ZREM', key.idempotency_ends, reservation)
end

return { ended, #with_events, #reservations }
