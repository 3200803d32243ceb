-- Returns the records of some circuits. It changes nothing.
--
-- KEYS: the records.
local rows = {}
for i, key in ipairs(KEYS) do
  rows[i] = row(read({ record = key }))
end
return rows
