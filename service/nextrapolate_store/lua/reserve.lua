-- Reserve an idempotency key for a job that is about to be submitted.
--
-- ARGV    1 tenant, 2 idempotency key, 3 digest of the body, 4 id for the job,
--         5 how long a reservation without a job holds (ms), 6 how long the key is remembered (ms),
--         7 amounts of quotas to hold for the job as long as the reservation holds (JSON)
-- reply   {'reserved', id}    submit under this id
--         {'submitted', id}   done before: this is the job
--         {'mismatch'}        the key stands for another body
--         {'in-flight'}       somebody else is submitting right now
--         {'quota', ...}      the tenant may not have another job, as hold.lua says
-- keeps   A key stands for one body and one job id for as long as it is remembered. A reservation whose
--         holder died is taken over with its id: even if the holder comes back, the two make one job.
local tenant, idempotency_key, digest, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local holds, remembered, amounts = tonumber(ARGV[5]), tonumber(ARGV[6]), cjson.decode(ARGV[7])
local reservation = key.idempotency .. tenant .. ':' .. idempotency_key
local now = now_ms()

local function reserve(reserved_id)
  local refusal = hold(tenant, reserved_id, amounts, now + holds, now)
  if refusal then
    return refusal
  end
  redis.call('HSET', reservation, 'digest', digest, 'job', reserved_id, 'reserved_at', now)
  redis.call('ZADD', key.idempotency_ends, 'NX', now + remembered, reservation)
  return { 'reserved', reserved_id }
end

local known = redis.call('HMGET', reservation, 'digest', 'job', 'reserved_at')
if not known[1] then
  return reserve(id)
elseif known[1] ~= digest then
  return { 'mismatch' }
elseif redis.call('EXISTS', key.job .. known[2]) == 1 then
  return { 'submitted', known[2] }
elseif known[2] == id or tonumber(known[3]) + holds <= now then
  return reserve(known[2])
end
return { 'in-flight' }
