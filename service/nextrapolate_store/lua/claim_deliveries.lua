-- Take webhooks that are due, to deliver them.
--
-- ARGV    1 how many, 2 how long nobody else may take them (ms), 3 how many of one tenant may be taken at a
--         time, 4 how many to look at, 5 a token that is new with each claim
-- reply   pairs of a job's id and the number of the attempt
-- keeps   Two processes never deliver a webhook at the same time. One that dies over it leaves it due. Where
--         as many of a tenant's are being delivered as may, the next one is parked, out of the way of other
--         tenants. The token lets a process that never got its reply ask again. Where the clock was set back,
--         a claim counts as made now at the latest.
local limit, hold_ms, most, looked_at = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local taken = key.delivery_claim .. ARGV[5]
local now, due = now_ms(), {}

local function hold_from_now(tenant, id)
  redis.call('ZADD', key.deliveries, now + hold_ms, id)
  redis.call('ZADD', key.tenant_delivering .. tenant, now + hold_ms, id)
end

local function room(tenant)
  local delivering = key.tenant_delivering .. tenant
  redis.call('ZREMRANGEBYSCORE', delivering, '-inf', now)
  for _, late in ipairs(redis.call('ZRANGEBYSCORE', delivering, '(' .. now + hold_ms, '+inf')) do
    hold_from_now(tenant, late)
  end
  return most - redis.call('ZCARD', delivering)
end

local function park(tenant, id)
  redis.call('ZADD', key.tenant_webhooks_parked .. tenant, redis.call('ZSCORE', key.deliveries, id), id)
  redis.call('SADD', key.webhooks_parked, tenant)
  redis.call('ZREM', key.deliveries, id)
end

local function take(tenant, id)
  hold_from_now(tenant, id)
  table.insert(due, { id, redis.call('HINCRBY', key.job .. id, 'delivery', 1) })
end

local before = redis.call('GET', taken)
if before then
  return cjson.decode(before)
end

for _, tenant in ipairs(redis.call('SMEMBERS', key.webhooks_parked)) do
  local parked, free = key.tenant_webhooks_parked .. tenant, room(tenant)
  local back = free > 0 and redis.call('ZRANGE', parked, 0, free - 1, 'WITHSCORES') or {}
  for position = 1, #back, 2 do
    redis.call('ZREM', parked, back[position])
    redis.call('ZADD', key.deliveries, back[position + 1], back[position])
  end
  if redis.call('EXISTS', parked) == 0 then
    redis.call('SREM', key.webhooks_parked, tenant)
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
