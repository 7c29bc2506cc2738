-- Put right what a dead process or a lost message left behind.
--
-- KEYS    1 the broker's list of messages
-- ARGV    1 how many attempts a job has, 2 how long a message may take (ms), 3 error of a job whose worker
--         was lost (JSON), 4 how many to look at in one pass: leases, queued jobs, parked ones of each tenant
-- reply   ids: {requeued, failed, cancelled, wake, gone}; the last had no record and left their indexes
-- keeps   Any number of processes may run this at any time. A job is woken again at most once in the time a
--         message may take, and no more are woken than messages are missing, so the list stays short. Where
--         the clock was set back, leases and waits end as if they had begun now at the latest.
local max_attempts, patience = tonumber(ARGV[1]), tonumber(ARGV[2])
local worker_lost, limit = ARGV[3], tonumber(ARGV[4])
local now = now_ms()
local ended = { queued = {}, failed = {}, cancelled = {} }
local wake, gone = {}, {}

local function present(index, ids)
  local found, without_record = with_records(index, ids)
  for _, id in ipairs(without_record) do
    table.insert(gone, id)
  end
  return found
end

for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', key.leases, '+inf', now, 'LIMIT', 0, limit)) do
  local lease = tonumber(get(id, 'lease'))
  if lease then
    redis.call('ZADD', key.leases, 'LT', now + lease, id)
  end
end
local expired = redis.call('ZRANGEBYSCORE', key.leases, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(present(key.leases, expired)) do
  count('lease_expired')
  if get(id, 'last_error') == '' then
    set(id, 'last_error', worker_lost)
  end
  table.insert(ended[end_attempt(id, max_attempts, cjson.decode(worker_lost).detail, 0)], id)
end

for _, tenant in ipairs(redis.call('SMEMBERS', key.parking)) do
  local parked = key.tenant_parked .. tenant
  local room = math.min(quota_of(tenant, 'running_jobs') - used(tenant, 'running_jobs'), limit)
  for _, id in ipairs(room > 0 and present(parked, redis.call('ZRANGE', parked, 0, room - 1)) or {}) do
    redis.call('ZREM', parked, id)
    enqueue(id)
    set(id, 'woken_at', 0)
  end
  if redis.call('EXISTS', parked) == 0 then
    redis.call('SREM', key.parking, tenant)
  end
end

local queued = present(key.queued, redis.call('ZRANGE', key.queued, 0, limit - 1))
local missing = redis.call('ZCARD', key.queued) - redis.call('LLEN', KEYS[1])
for _, id in ipairs(queued) do
  local woken_at, rest = tonumber(get(id, 'woken_at')), tonumber(get(id, 'rest') or 0)
  local has_waited = math.abs(now - woken_at) >= (rest > 0 and rest or patience)
  -- 0: it came back from an attempt, or was parked, so it has no message at all, as one that rests.
  if woken_at == 0 or (has_waited and (rest > 0 or missing > 0)) then
    set(id, 'woken_at', now, 'rest', 0)
    count('republished')
    table.insert(wake, id)
    missing = missing - 1
  elseif rest > 0 then
    missing = missing - 1
  end
end

return { ended.queued, ended.failed, ended.cancelled, wake, gone }
