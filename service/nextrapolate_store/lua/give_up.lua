-- End an attempt that died without a result; the job goes back to the queue while it has attempts left.
--
-- ARGV    1 id, 2 fence, 3 error (JSON), 4 how many attempts a job has, 5 how long it rests after the first
--         (ms), four times as long after each further one, 6 how long at most (ms)
-- reply   the state of the job afterwards, nil where there is no such job
-- keeps   Only the newest claim can give up.
local id, fence, error, max_attempts = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if not held(id, fence) then
  return get(id, 'state')
end
count('attempts_failed')
set(id, 'last_error', error)
local rest = math.min(ARGV[5] * 4 ^ (get(id, 'attempt') - 1), tonumber(ARGV[6]))
return end_attempt(id, max_attempts, cjson.decode(error).detail, rest)
