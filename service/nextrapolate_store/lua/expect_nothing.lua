-- Say that nothing more will be fetched for a job.
--
-- ARGV    1 id
-- reply   nothing
local id = ARGV[1]
if get(id, 'coming_bytes') then
  expect_nothing(id)
end
