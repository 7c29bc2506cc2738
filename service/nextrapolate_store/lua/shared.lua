-- In front of every script, behind quotas.lua.
--
-- A job's keys follow from its id and from the tenant in its record, so they are made here and not handed in
-- as KEYS: this store wants one Redis (with replicas, if you like), not a cluster.

-- Milliseconds on Redis' own clock, the only clock of the protocol.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function get(id, field)
  return redis.call('HGET', key.job .. id, field)
end

local function set(id, ...)
  redis.call('HSET', key.job .. id, ...)
end

local function count(counter)
  redis.call('HINCRBY', key.counters, counter, 1)
end

-- Those of some ids in an index whose job has a record. One without, which Redis has lost in some way, leaves
-- the index, lest it hold up the others for ever. Gives both: those with a record, and those that left.
local function with_records(index, ids)
  local present, gone = {}, {}
  for _, id in ipairs(ids) do
    if get(id, 'state') then
      table.insert(present, id)
    else
      redis.call('ZREM', index, id)
      table.insert(gone, id)
    end
  end
  return present, gone
end

local function tell(id, event, message)
  local job = redis.call('HMGET', key.job .. id, 'state', 'stage', 'progress', 'attempt')
  redis.call('XADD', key.events .. id, '*', 'type', event, 'message', message or '',
    'state', job[1], 'stage', job[2], 'progress', job[3], 'attempt', job[4])
end

-- Take a job out of the index of its tenant and of those by state, whichever it is in.
local function unlist(index, id)
  redis.call('ZREM', index, id)
  for _, state in ipairs({ 'queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled' }) do
    redis.call('ZREM', index .. ':' .. state, id)
  end
end

local function has_ended(state)
  return state == 'succeeded' or state == 'failed' or state == 'cancelled'
end

local function wants_webhook(id)
  return type(cjson.decode(get(id, 'request')).webhook) == 'table'
end

-- Put a job in its place in the queue, which goes by when it was submitted, however late it comes back. One
-- that was held for less than a lease, as by a worker whose machine is broken, goes on waiting since it came.
local function enqueue(id)
  local now = now_ms()
  redis.call('ZADD', key.queued, get(id, 'created_at'), id)
  local held = now - tonumber(get(id, 'fence') or 0)
  if held >= tonumber(get(id, 'lease') or 0) or not get(id, 'queued_at') then
    set(id, 'queued_at', now)
  end
end

-- The one place where a state changes: the record, every index and the event move together.
local function move(id, state, event, message)
  local tenant = get(id, 'tenant')
  local index = key.tenant_jobs .. tenant .. ':'
  redis.call('ZREM', index .. get(id, 'state'), id)
  redis.call('ZADD', index .. state, 0, id)
  set(id, 'state', state)
  if state == 'queued' then
    enqueue(id)
  else
    redis.call('ZREM', key.queued, id)
    redis.call('ZREM', key.tenant_parked .. tenant, id)
  end
  if state ~= 'running' and state ~= 'cancelling' then
    redis.call('ZREM', key.leases, id)
  end
  if has_ended(state) then
    local now = now_ms()
    set(id, 'finished_at', now)
    redis.call('ZADD', key.ended, now, id)
    redis.call('ZADD', key.events_kept, now, id)
    redis.call('SADD', key.unrecorded, id)
    if wants_webhook(id) then
      redis.call('ZADD', key.deliveries, now, id)
    end
  end
  count('jobs:' .. state)
  tell(id, event, message)
end

-- Note the results of a job that has succeeded, and count them as stored by its tenant.
local function keep_results(id, artifacts)
  local bytes = 0
  for _, file in pairs(cjson.decode(artifacts)) do
    bytes = bytes + file.bytes
  end
  set(id, 'artifacts', artifacts, 'stored_bytes', string.format('%.0f', bytes))
  charge(get(id, 'tenant'), bytes)
end

-- What was to be fetched for a job counts as stored no longer: it is, or never will be.
local function expect_nothing(id)
  charge(get(id, 'tenant'), -tonumber(get(id, 'coming_bytes') or 0))
  redis.call('HDEL', key.job .. id, 'coming_bytes')
end

-- Take a job out of every index, and remove it.
local function forget(id)
  local tenant = get(id, 'tenant')
  local index = key.tenant_jobs .. tenant
  redis.call('ZREM', index .. ':' .. get(id, 'state'), id)
  local indexes = {
    index, key.queued, key.tenant_parked .. tenant, key.leases, key.ended, key.events_kept, key.deliveries,
    key.tenant_delivering .. tenant, key.tenant_webhooks_parked .. tenant,
  }
  for _, ids in ipairs(indexes) do
    redis.call('ZREM', ids, id)
  end
  charge(tenant, -tonumber(get(id, 'stored_bytes') or 0))
  expect_nothing(id)
  redis.call('SREM', key.unrecorded, id)
  redis.call('DEL', key.job .. id, key.events .. id)
end

-- The state of a job that the holder of this fence may still write for; nil, and counted, where it may not.
local function held(id, fence)
  local state = get(id, 'state')
  if (state == 'running' or state == 'cancelling') and get(id, 'fence') == fence then
    return state
  end
  count('fence_refused')
  return nil
end

-- True where this very holder has brought the job to this end before: its reply was lost, and it asks again.
local function repeated(id, fence, state)
  return get(id, 'state') == state and get(id, 'fence') == fence
end

-- An attempt ended without a result: again after a rest (ms; 0 is at once), unless it was the last, or nobody
-- wants it any more. Gives the state.
local function end_attempt(id, max_attempts, reason, rest)
  if get(id, 'state') == 'cancelling' then
    move(id, 'cancelled', 'cancelled')
  elseif tonumber(get(id, 'attempt')) >= max_attempts then
    move(id, 'failed', 'failed', cjson.decode(get(id, 'last_error')).detail)
  else
    set(id, 'stage', '', 'progress', 0, 'message', '', 'rest', rest, 'woken_at', rest > 0 and now_ms() or 0)
    move(id, 'queued', 'requeued', reason)
  end
  return get(id, 'state')
end
