-- Count a blob as gone.
--
-- ARGV    1 tenant, 2 sha256
-- reply   nothing
local tenant, sha256 = ARGV[1], ARGV[2]
local bytes = redis.call('HGET', key.tenant_blobs .. tenant, sha256)
if bytes then
  redis.call('HDEL', key.tenant_blobs .. tenant, sha256)
  charge(tenant, -tonumber(bytes))
end
