-- Create a queued job.
--
-- ARGV    1 id, 2 tenant, 3 request (JSON), 4 inputs (JSON), 5 created at (ms), 6 fence that is taken
--         already, 7 bytes that will be fetched for it, 8 1 where its webhook is signed
-- reply   {1, its record as HGETALL gives it}, or {0, its record} where it is there already
-- keeps   One id makes one job: where it exists, nothing changes. What was held under its id is used by it
--         from now on; what will be fetched counts as stored until it is, and the job is over.
local id, tenant, request, inputs, created_at, fence, coming_bytes, signed = unpack(ARGV)
if redis.call('EXISTS', key.job .. id) == 1 then
  return { 0, redis.call('HGETALL', key.job .. id) }
end

set(id, 'id', id, 'tenant', tenant, 'request', request, 'inputs', inputs, 'state', 'queued', 'stage', '',
  'progress', 0, 'message', '', 'attempt', 0, 'fence', fence, 'created_at', created_at, 'woken_at', now_ms(),
  'last_error', '', 'artifacts', '{}', 'coming_bytes', coming_bytes, 'webhook_is_signed', signed)
charge(tenant, tonumber(coming_bytes))
unlist(key.tenant_jobs .. tenant, id) -- where Redis has lost the record alone, and it is brought back
redis.call('ZADD', key.tenant_jobs .. tenant, 0, id)
end_hold(tenant, id)
move(id, 'queued', 'queued')
return { 1, redis.call('HGETALL', key.job .. id) }
