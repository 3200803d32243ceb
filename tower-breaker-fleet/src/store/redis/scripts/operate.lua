-- Applies a manual operation, unless its epoch is another one or an override forbids it.
--
-- KEYS: record, votes, failures, leases, names, expiries.
-- ARGV: 3 name, 4 action, 5 by, 6 reason, 7 expected epoch, 8 open time of a trip, 9 time of an override,
--   10 grace.
-- Returns applied (0 or 1), and the record.
local name, action, by, reason, expected = ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local grace = tonumber(ARGV[10])
local record = read(keys_at(1))
local is_blocked = record.manual ~= '' and (action == 'trip' or action == 'reset')
local applied = not is_blocked and (not expected or expected == record.epoch)

local function force(state, manual)
  begin_epoch(record, now, state, 0, reason, by, grace)
  record.manual, record.manual_length = manual, tonumber(ARGV[9])
  record.manual_ends = record.manual_length and now + record.manual_length
end

if applied and action == 'trip' then
  begin_epoch(record, now, 'open', tonumber(ARGV[8]), reason, by, grace)
elseif applied and action == 'reset' then
  begin_epoch(record, now, 'closed', 0, reason, by, grace)
elseif applied and action == 'force_open' then
  force('open', 'forced_open')
elseif applied and action == 'force_closed' then
  force('closed', 'forced_closed')
elseif applied and action == 'release' and record.manual ~= '' then
  -- Without an override it changes nothing, so that a repeated release closes no circuit.
  release(record, now, reason, by, grace)
end
finish(record, name)
return { applied and 1 or 0, row(record) }
