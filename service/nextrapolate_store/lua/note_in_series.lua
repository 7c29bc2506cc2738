-- Note a file or a jump of a series.
--
-- ARGV    1 id, 2 prefix of the hash, 3 field, 4 value
-- reply   1, or 0 where there is no such series
-- keeps   What is there does not change. A deleted series stays gone: nobody would remove what came late.
local id, prefix, field, value = unpack(ARGV)
if redis.call('EXISTS', key.series .. id) == 0 then
  return 0
end
redis.call('HSETNX', prefix .. id, field, value)
return 1
