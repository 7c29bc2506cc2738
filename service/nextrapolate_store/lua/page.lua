-- Read one page of an index of ids, newest first.
--
-- KEYS    1 the index, 2... prefixes of the hashes that make up one record
-- ARGV    1 where to start, as ZRANGE BYLEX wants it, 2 how many, 3 the index of the tenant's, of which
--         KEYS[1] may be the part of one state
-- reply   for each id a list of hashes, each as HGETALL gives it
-- keeps   One without a record, which Redis has lost somehow, leaves the indexes, and its quotas with them.
local function ids()
  return redis.call('ZRANGE', KEYS[1], ARGV[1], '-', 'BYLEX', 'REV', 'LIMIT', 0, ARGV[2])
end

local function all_have_records()
  local found = true
  for _, id in ipairs(ids()) do
    if redis.call('HEXISTS', KEYS[2] .. id, 'id') == 0 then
      unlist(ARGV[3], id)
      found = false
    end
  end
  return found
end

repeat until all_have_records()

local page = {}
for _, id in ipairs(ids()) do
  local record = {}
  for position = 2, #KEYS do
    table.insert(record, redis.call('HGETALL', KEYS[position] .. id))
  end
  table.insert(page, record)
end
return page
