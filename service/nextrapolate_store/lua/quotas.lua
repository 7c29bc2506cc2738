-- In front of every script: how much a tenant may use, and uses. `key` is the table of key names.
--
-- What is on its way, an upload or a job that is being submitted, is held: its quota is used up before
-- anything is written, so nothing that was written has to be taken back. A hold ends with what it was for, or
-- with its process. Holds are not written to disk: without them Redis forgets what was not acknowledged
-- anyway, and nobody has to wait for the disk.

-- No hold is longer (ms), so one that seems to be is from before the clock was set back.
local longest_hold = 60000

-- As much as anybody may have who was not told otherwise, until an API has told.
local unlimited = 2 ^ 53

local function quota_of(tenant, quota)
  local own = redis.call('HGET', key.tenant_quotas .. tenant, quota)
  return tonumber(own or redis.call('HGET', key.quotas, quota) or unlimited)
end

-- What is used, without what is held; uploads are nothing but held.
local function used(tenant, quota)
  local jobs = key.tenant_jobs .. tenant
  if quota == 'bytes' then
    return tonumber(redis.call('GET', key.tenant_bytes .. tenant) or 0)
  elseif quota == 'series' then
    return redis.call('ZCARD', key.tenant_series .. tenant)
  elseif quota == 'queued_jobs' then
    return redis.call('ZCARD', jobs .. ':queued')
  elseif quota == 'running_jobs' then
    return redis.call('ZCARD', jobs .. ':running') + redis.call('ZCARD', jobs .. ':cancelling')
  elseif quota == 'kept_jobs' then
    return redis.call('ZCARD', jobs)
  end
  return 0
end

local function end_hold(tenant, id)
  redis.set_repl(redis.REPL_NONE)
  redis.call('ZREM', key.tenant_hold_ends .. tenant, id)
  redis.call('HDEL', key.tenant_holds .. tenant, id)
  redis.set_repl(redis.REPL_ALL)
end

local function hold_until(tenant, id, ends_at)
  redis.set_repl(redis.REPL_NONE)
  redis.call('ZADD', key.tenant_hold_ends .. tenant, ends_at, id)
  redis.set_repl(redis.REPL_ALL)
end

-- What all holds but this one sum up to, by quota.
local function held_by_others(tenant, id, now)
  local ends, latest = key.tenant_hold_ends .. tenant, now + longest_hold
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now)) do
    end_hold(tenant, dead)
  end
  for _, late in ipairs(redis.call('ZRANGEBYSCORE', ends, '(' .. latest, '+inf')) do
    hold_until(tenant, late, latest)
  end
  local sums = {}
  local holds = redis.call('HGETALL', key.tenant_holds .. tenant)
  for position = 1, #holds, 2 do
    for quota, amount in pairs(holds[position] == id and {} or cjson.decode(holds[position + 1])) do
      sums[quota] = (sums[quota] or 0) + amount
    end
  end
  return sums
end

-- Hold amounts of quotas under an id, or go on holding them under it. Gives nil, or what stands in the way:
-- {'quota', its name, how much of it is used, how much may be}.
local function hold(tenant, id, amounts, ends_at, now)
  if next(amounts) == nil then
    return nil
  end
  local held = held_by_others(tenant, id, now)
  for _, quota in ipairs({ 'uploads', 'queued_jobs', 'kept_jobs', 'series', 'bytes' }) do
    local amount = amounts[quota] or 0
    local uses, most = used(tenant, quota) + (held[quota] or 0), quota_of(tenant, quota)
    if amount > 0 and uses + amount > most then
      return { 'quota', quota, uses, most }
    end
  end
  hold_until(tenant, id, ends_at)
  redis.set_repl(redis.REPL_NONE)
  redis.call('HSET', key.tenant_holds .. tenant, id, cjson.encode(amounts))
  redis.set_repl(redis.REPL_ALL)
  return nil
end

-- Count bytes as stored by the tenant, or with a minus as gone.
local function charge(tenant, bytes)
  if bytes ~= 0 then
    redis.call('INCRBY', key.tenant_bytes .. tenant, string.format('%.0f', bytes))
  end
end
