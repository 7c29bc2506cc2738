-- Note what came of an attempt to deliver a webhook.
--
-- ARGV    1 id, 2 number of the attempt, 3 its record (JSON), 4 when the next one is due (ms), '' for never
-- reply   1, or 0 where another process has taken it since, or the job is gone
local id, attempt, record, next_at = unpack(ARGV)
if get(id, 'delivery') ~= attempt then
  return 0
end
set(id, 'delivery:' .. attempt, record)
local tenant = get(id, 'tenant')
redis.call('ZREM', key.tenant_delivering .. tenant, id)
redis.call('ZREM', key.tenant_webhooks_parked .. tenant, id)
if next_at == '' then
  redis.call('ZREM', key.deliveries, id)
else
  redis.call('ZADD', key.deliveries, next_at, id)
end
return 1
