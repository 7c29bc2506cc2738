-- Count a blob as stored by its tenant, once, in place of what was held for it.
--
-- ARGV    1 tenant, 2 sha256, 3 bytes, 4 id of the hold, '' where there is none
-- reply   nothing
local tenant, sha256, bytes, id = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
if redis.call('HSETNX', key.tenant_blobs .. tenant, sha256, bytes) == 1 then
  charge(tenant, bytes)
end
end_hold(tenant, id)
