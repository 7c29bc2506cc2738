-- Create a series.
--
-- ARGV    1 id, 2 tenant, then fields and values of its record
-- reply   1, or 0 where it is there already
-- keeps   What was held under its id is used by it from now on.
local id, tenant = ARGV[1], ARGV[2]
local is_new = redis.call('EXISTS', key.series .. id) == 0
redis.call('HSET', key.series .. id, 'id', id, 'tenant', tenant, unpack(ARGV, 3))
redis.call('ZADD', key.tenant_series .. tenant, 0, id)
end_hold(tenant, id)
return is_new and 1 or 0
