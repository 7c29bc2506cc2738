-- Let one request of an API key in, as far as its rate allows (a token bucket).
--
-- ARGV    1 id of the key, 2 requests a second, 3 requests at once
-- reply   0, or in how many milliseconds there is room for it
-- keeps   The time at which a bucket is full again says all about it. Buckets are not written to disk: one
--         that is lost with Redis is a full one, and no request has to wait for the disk. Where Redis takes
--         no writes (pcall), the request may be one that needs none, or that frees memory: it is let in.
local id, interval, burst = ARGV[1], 1000 / tonumber(ARGV[2]), tonumber(ARGV[3])
local bucket, now = key.api_key_bucket .. id, now_ms()

-- Every hour at most it is kept that the key is in use, if it has not been lost since it was let in.
local known = redis.call('HMGET', key.api_key .. id, 'id', 'used_at')
if known[1] and tonumber(known[2] or 0) + 3600000 <= now then
  redis.pcall('HSET', key.api_key .. id, 'used_at', now)
end

redis.set_repl(redis.REPL_NONE)
-- None takes longer to fill up than an empty one: what lies beyond is from before the clock was set back.
local full_at = math.min(math.max(tonumber(redis.call('GET', bucket) or 0), now), now + burst * interval)
local wait = math.max(full_at + interval - now - burst * interval, 0)
if wait == 0 then
  full_at = full_at + interval
end
-- Redis writes down when a key expires, so it lives for much longer than a bucket takes to fill up.
redis.pcall('SET', bucket, string.format('%.3f', full_at), 'EX', 86400)
return math.ceil(wait)
