-- Read what a series has at one step, however many steps it has.
--
-- ARGV    1 id, then fields of its hash of files
-- reply   {its tenant, '' where there is no such series, how many files it has, the value of each field}
local id = ARGV[1]
local tenant = redis.call('HGET', key.series .. id, 'tenant')
local files = redis.call('HMGET', key.series_files .. id, unpack(ARGV, 2))
return { tenant or '', redis.call('HLEN', key.series_files .. id), unpack(files) }
