-- Give back what was held.
--
-- ARGV    1 tenant, 2 id of the hold
-- reply   nothing
end_hold(ARGV[1], ARGV[2])
