-- Take webhooks that are due, to tell them.
--
-- ARGV    1 how many, 2 how long nobody else may take them (ms), 3 how many of one tenant may be taken at a
--         time, 4 how many to look at, 5 a token that is new with each claim
-- reply   pairs of a job's id and the number of the attempt
-- keeps   Two processes never tell a webhook at the same time. One that dies over it leaves it due. Where as
--         many of a tenant's are being told as may, the next one is parked, out of the way of other tenants.
--         The token lets a process that never got its reply ask again. Where the clock was set back, what is
--         being told is so as if it had been taken now at the latest.
local limit, hold_ms, most, looked_at = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local taken = key.taken .. ARGV[5]
local now, due = now_ms(), {}

local function tell_from_now(tenant, id)
  redis.call('ZADD', key.deliveries, now + hold_ms, id)
  redis.call('ZADD', key.tenant_telling .. tenant, now + hold_ms, id)
end

local function room(tenant)
  local telling = key.tenant_telling .. tenant
  redis.call('ZREMRANGEBYSCORE', telling, '-inf', now)
  for _, late in ipairs(redis.call('ZRANGEBYSCORE', telling, '(' .. now + hold_ms, '+inf')) do
    tell_from_now(tenant, late)
  end
  return most - redis.call('ZCARD', telling)
end

local function park(tenant, id)
  redis.call('ZADD', key.tenant_untold .. tenant, redis.call('ZSCORE', key.deliveries, id), id)
  redis.call('SADD', key.untold, tenant)
  redis.call('ZREM', key.deliveries, id)
end

local function take(tenant, id)
  tell_from_now(tenant, id)
  table.insert(due, { id, redis.call('HINCRBY', key.job .. id, 'delivery', 1) })
end

local before = redis.call('GET', taken)
if before then
  return cjson.decode(before)
end

for _, tenant in ipairs(redis.call('SMEMBERS', key.untold)) do
  local parked, free = key.tenant_untold .. tenant, room(tenant)
  local back = free > 0 and redis.call('ZRANGE', parked, 0, free - 1, 'WITHSCORES') or {}
  for position = 1, #back, 2 do
    redis.call('ZREM', parked, back[position])
    redis.call('ZADD', key.deliveries, back[position + 1], back[position])
  end
  if redis.call('EXISTS', parked) == 0 then
    redis.call('SREM', key.untold, tenant)
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', key.deliveries, '-inf', now, 'LIMIT', 0, looked_at)) do
  local tenant = get(id, 'tenant')
  if not tenant then
    redis.call('ZREM', key.deliveries, id)
  elseif room(tenant) <= 0 then
    park(tenant, id)
  elseif #due < limit then
    take(tenant, id)
  end
end
if #due > 0 then
  redis.call('SET', taken, cjson.encode(due), 'PX', hold_ms)
end
return due
