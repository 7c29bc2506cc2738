-- Take a queued job, to run it.
--
-- ARGV    1 id, 2 name of the worker, 3 a token that is new with each claim, 4 length of the lease (ms)
-- reply   the fence, or nil where there is nothing to claim, now at least
-- keeps   At most one claim of a job is alive, and each has a higher fence than all before: the time, so that
--         it differs also from one that was given out in the last second of a Redis whose replica has taken
--         over. The token lets a worker that never got its reply ask again. Where a tenant has as many jobs
--         running as it may, the job is parked: it stays queued, out of the way of other tenants, until the
--         reconciler finds room for it.
local id, worker, token, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local state = get(id, 'state')
if state == 'running' and get(id, 'claim') == token then
  return tonumber(get(id, 'fence'))
elseif state ~= 'queued' then
  return nil
end

local tenant = get(id, 'tenant')
local most = quota_of(tenant, 'running_jobs')
if used(tenant, 'running_jobs') >= most then
  redis.call('ZREM', key.queued, id)
  redis.call('ZADD', key.tenant_parked .. tenant, get(id, 'created_at'), id)
  redis.call('SADD', key.parking, tenant)
  set(id, 'message', 'waits: its tenant\'s maximum of running jobs (' .. most .. ') is reached')
  tell(id, 'progress', get(id, 'message'))
  return nil
end

local now = now_ms()
local fence = math.max(tonumber(get(id, 'fence')) + 1, now)
redis.call('HINCRBY', key.job .. id, 'attempt', 1)
redis.call('HSETNX', key.job .. id, 'started_at', now)
redis.call('ZADD', key.leases, now + lease, id)
set(id, 'fence', string.format('%.0f', fence), 'claim', token, 'lease', lease, 'message', '')
move(id, 'running', 'claimed', worker)
return fence
