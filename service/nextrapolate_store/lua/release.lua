-- Give a job back whose worker is asked to stop, or lacks what it needs; it waits in the queue again.
--
-- ARGV    1 id, 2 fence, 3 why
-- reply   the state of the job afterwards, nil where there is no such job
-- keeps   Only the newest claim can release. It does not count as an attempt: a deploy or a full disk is not
--         the job's fault, and no number of them may fail it. One that was being cancelled ends as cancelled.
local id, fence, reason = ARGV[1], ARGV[2], ARGV[3]
if held(id, fence) then
  local attempt = redis.call('HINCRBY', key.job .. id, 'attempt', -1)
  end_attempt(id, attempt + 1, reason, 0)
end
return get(id, 'state')
