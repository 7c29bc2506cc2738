-- Read the hashes that make up one record, as of one moment.
--
-- KEYS    the hashes
-- reply   a list of them, each as HGETALL gives it
local hashes = {}
for position = 1, #KEYS do
  hashes[position] = redis.call('HGETALL', KEYS[position])
end
return hashes
