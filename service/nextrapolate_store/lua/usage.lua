-- Tell how much of each quota a tenant uses, what is held among it, and how much it may.
--
-- ARGV    1 tenant, then names of quotas
-- reply   {used, may be used} for each
local tenant = ARGV[1]
local held = held_by_others(tenant, '', now_ms())
local usage = {}
for position = 2, #ARGV do
  local quota = ARGV[position]
  table.insert(usage, { used(tenant, quota) + (held[quota] or 0), quota_of(tenant, quota) })
end
return usage
