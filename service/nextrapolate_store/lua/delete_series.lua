-- Remove a series. Its files are blobs, and go when nothing needs them any more.
--
-- ARGV    1 id, 2 tenant
-- reply   nothing
local id, tenant = ARGV[1], ARGV[2]
redis.call('DEL', key.series .. id, key.series_files .. id, key.series_jumps .. id)
redis.call('ZREM', key.tenant_series .. tenant, id)
