-- Write an API key down.
--
-- ARGV    1 id, 2 digest of the whole key, then fields and values of its record
-- reply   nothing
-- keeps   The same key once more changes nothing, so one that was revoked stays revoked.
local id, digest = ARGV[1], ARGV[2]
local record = key.api_key .. id
if redis.call('HGET', record, 'digest') == digest then
  return
end
redis.call('DEL', record)
redis.call('HSET', record, 'id', id, 'digest', digest, unpack(ARGV, 3))
redis.call('SADD', key.api_keys, id)
