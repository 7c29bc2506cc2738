-- Keep a claim alive, and say how far the job is.
--
-- ARGV    1 id, 2 fence, 3 length of the lease (ms), 4 stage, 5 progress; '' where there is no news
-- reply   'held', 'cancel' or 'lost'
-- keeps   Only the newest claim can prolong its lease. An event tells of news, never of the beat alone.
local id, fence, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local state = held(id, fence)
if not state then
  return 'lost'
end
redis.call('ZADD', key.leases, now_ms() + lease, id)
if state == 'cancelling' then
  return 'cancel'
end

local news = false
for position, field in ipairs({ 'stage', 'progress' }) do
  local value = ARGV[3 + position]
  if value ~= '' and value ~= get(id, field) then
    set(id, field, value)
    news = true
  end
end
if news then
  tell(id, 'progress', get(id, 'message'))
end
return 'held'
