-- Hold amounts of a tenant's quotas for what is on its way, or go on holding them.
--
-- ARGV    1 tenant, 2 id of the hold, 3 amounts by quota (JSON), 4 how long it holds unless renewed (ms),
--         5 sha256 of the file it is for, '' where that is not known
-- reply   nil, or {'quota', name, how much is used, how much may be}
-- keeps   What a tenant uses and holds is never more than its quotas. A stored file takes no more room, and
--         nothing beyond its size is that file.
local tenant, id, amounts, lease, sha256 = ARGV[1], ARGV[2], cjson.decode(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local stored = sha256 ~= '' and redis.call('HGET', key.tenant_blobs .. tenant, sha256)
if stored then
  amounts.bytes = math.max(0, amounts.bytes - tonumber(stored))
end
local now = now_ms()
return hold(tenant, id, amounts, now + lease, now)
