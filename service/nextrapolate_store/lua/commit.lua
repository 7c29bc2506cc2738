-- Make the results of an attempt the results of the job.
--
-- ARGV    1 id, 2 fence, 3 artifacts (JSON), then names of counters and what to add to them
-- reply   1, or 0 where it is refused
-- keeps   A job is committed once, by its newest claim, and never after somebody asked to cancel it.
local id, fence, artifacts = ARGV[1], ARGV[2], ARGV[3]
if repeated(id, fence, 'succeeded') then
  return 1
elseif held(id, fence) ~= 'running' then
  return 0
end

set(id, 'progress', 1, 'stage', 'publish')
keep_results(id, artifacts)
move(id, 'succeeded', 'succeeded')
for position = 4, #ARGV, 2 do
  redis.call('HINCRBYFLOAT', key.counters, ARGV[position], ARGV[position + 1])
end
return 1
