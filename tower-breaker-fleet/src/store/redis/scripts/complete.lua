-- Counts the outcome of a probe, and frees its slot.
--
-- KEYS: record, votes, failures, leases, names, expiries.
-- ARGV: 3 instance, 4 name, 5 epoch of the lease, 6 outcome (success, failure, neutral), 7 open time,
--   8 successes that close the circuit, 9 failures that open it, 10 grace.
-- Returns the record. Without effect in another epoch, and without a lease: the message is late or
-- repeated.
local instance, name, outcome, grace = ARGV[3], ARGV[4], ARGV[6], tonumber(ARGV[10])
local record = read(keys_at(1))
local is_current = record.epoch == tonumber(ARGV[5]) and record.state == 'half_open' and record.manual == ''
local lease = is_current and read_leases(record.keys.leases)[instance]
if lease then
  redis.call('HDEL', record.keys.leases, instance)
  if outcome == 'success' then
    record.successes = record.successes + 1
  elseif outcome == 'failure' then
    record.failures = record.failures + 1
  end
  if outcome == 'neutral' then
    -- The slot of a reservation was not taken, so no process has to be notified.
    record.changed = record.changed or lease.weight > 1 - 1e-6
  elseif record.successes >= tonumber(ARGV[8]) then
    begin_epoch(record, now, 'closed', 0, 'probes succeeded', instance, grace)
  elseif record.failures >= tonumber(ARGV[9]) then
    begin_epoch(record, now, 'open', tonumber(ARGV[7]), 'probes failed', instance, grace)
  else
    record.changed = true
  end
end
finish(record, name)
return row(record)
