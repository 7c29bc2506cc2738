-- Find jobs that have a text in their words, newest first: in their id, task, method and labels, and in the
-- id and the name of their series.
--
-- KEYS    1 the index
-- ARGV    1 where to start, as ZRANGE BYLEX wants it, 2 the text, in lower case, 3 how many to find,
--         4 how many to look at, 5 after how many bytes to look at no more
-- reply   the ids that were found, and the last one that was looked at where there are more
local limit, look_at, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local runs, read = {}, 0

local function decode(request)
  read = read + #request
  return cjson.decode(request)
end

local function name(series)
  if not runs[series] then
    local request = redis.call('HGET', key.series .. series, 'request')
    runs[series] = request and decode(request).name or ''
  end
  return runs[series]
end

local function words(id)
  local request = decode(get(id, 'request') or '{"labels": {}}')
  local found = {id, request.task, request.method and request.method.name}
  for label, value in pairs(request.labels or {}) do
    table.insert(found, label .. '\n' .. value)
  end
  if type(request.series) == 'string' then
    table.insert(found, request.series .. '\n' .. name(request.series))
  end
  return string.lower(table.concat(found, '\n'))
end

local ids = redis.call('ZRANGE', KEYS[1], ARGV[1], '-', 'BYLEX', 'REV', 'LIMIT', 0, look_at + 1)
local found = {}
for position, id in ipairs(ids) do
  if #found == limit or position > look_at or read > most_bytes then
    return {found, ids[position - 1]}
  end
  if string.find(words(id), ARGV[2], 1, true) then
    table.insert(found, id)
  end
end
return {found, ''}
