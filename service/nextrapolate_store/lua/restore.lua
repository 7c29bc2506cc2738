-- Bring back a job that ended, from its record on disk.
--
-- ARGV    1 id, 2 when it ended (ms), 3 its fields (JSON), 4 its events (JSON): pairs of an id and
--         the fields, 5 when its webhook is due (ms), '' for never
-- reply   1, or 0 where it is there, ended just so, already
-- keeps   An end that is on disk never changes, so it replaces whatever else Redis knew of the job, be it
--         another end. Who was recording that one still has to clear away what it made.
local id, finished_at, fields, events = ARGV[1], ARGV[2], cjson.decode(ARGV[3]), cjson.decode(ARGV[4])
local due_at = ARGV[5]
local known = redis.call('HMGET', key.job .. id, 'state', 'fence', 'finished_at')
if known[1] == fields.state and known[2] == fields.fence and known[3] == fields.finished_at then
  return 0
end
local is_recorded = redis.call('SISMEMBER', key.unrecorded, id) == 0
if known[1] then
  forget(id)
end

for name, value in pairs(fields) do
  set(id, name, value)
end
keep_results(id, fields.artifacts)
if not is_recorded then
  redis.call('SADD', key.unrecorded, id)
end
local index = key.tenant_jobs .. fields.tenant
-- Where Redis has lost the record alone, these are still of the job as it was.
unlist(index, id)
redis.call('DEL', key.events .. id)
redis.call('ZADD', index, 0, id)
redis.call('ZADD', index .. ':' .. fields.state, 0, id)
redis.call('ZADD', key.ended, finished_at, id)
redis.call('ZADD', key.events_kept, finished_at, id)
if due_at ~= '' then
  redis.call('ZADD', key.deliveries, due_at, id)
end
for _, event in ipairs(events) do
  redis.call('XADD', key.events .. id, event[1], unpack(event[2]))
end
return 1
