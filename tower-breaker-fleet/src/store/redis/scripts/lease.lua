-- Grants or extends the lease of one probe, if a slot is free.
--
-- KEYS: record, votes, failures, leases, names, expiries.
-- ARGV: 3 instance, 4 name, 5 probes, 6 length of the lease, 7 weight, 8 grace.
-- Returns granted (0 or 1), the time after which another request is useful, and the record.
local instance, name, grace = ARGV[3], ARGV[4], tonumber(ARGV[8])
local probes, length, weight = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

-- Sums of weights such as 0.1 + 0.2 are slightly above the exact sum.
local ROUNDING_ERROR = 1e-6

local function has_begun(lease)
  return lease.weight > 1 - ROUNDING_ERROR
end

-- Half-opens a circuit whose open time is over. Returns the time to wait if no probe may run.
local function begin_probes(record)
  if record.manual ~= '' or record.state == 'closed' then
    return 0
  elseif record.state == 'open' and not record.ends then
    -- Only a reset ends this. A process that asks all the same gets a bounded rate.
    return length
  elseif record.state == 'open' and record.ends > now then
    return record.ends - now
  elseif record.state == 'open' then
    begin_epoch(record, now, 'half_open', length, 'open time over', instance, grace)
  end
end

-- Returns when the first of some leases ends, at least 1 ms.
local function first_end(leases, is_chosen)
  local first
  for _, lease in pairs(leases) do
    if lease.is_live and is_chosen(lease) and (not first or lease.ends < first) then
      first = lease.ends
    end
  end
  return math.max((first or now) - now, 1)
end

-- Returns the sum of the weights of the live leases, and the number of live leases that have begun.
local function count(leases)
  local weights, begun = 0, 0
  for _, lease in pairs(leases) do
    if lease.is_live then
      weights = weights + lease.weight
      begun = begun + (has_begun(lease) and 1 or 0)
    end
  end
  return weights, begun
end

-- Returns the time to wait if no slot is free, and whether this probe takes the last slot.
local function grant(record, leases)
  local own, lease = leases[instance], { ends = now + length, length = length, weight = weight, is_live = true }
  if own and own.is_live then
    -- The message may be an earlier one that is late.
    lease.weight = math.max(own.weight, weight)
    if own.ends >= lease.ends then
      lease.ends, lease.length = own.ends, own.length
    end
  elseif count(leases) + weight > probes + ROUNDING_ERROR then
    return first_end(leases, function() return true end)
  end
  local was_begun = own and own.is_live and has_begun(own)
  leases[instance] = lease
  redis.call('HSET', record.keys.leases, instance,
    int(lease.ends) .. ':' .. int(lease.length) .. ':' .. string.format('%.6f', lease.weight))
  extend(record.keys.leases, 2 * lease.length)
  if lease.ends > record.ends then
    record.ends, record.length = lease.ends, lease.length
    record.is_extended = true
  end
  local _, begun = count(leases)
  return nil, has_begun(lease) and not was_begun and begun >= probes
end

local record = read(keys_at(1))
local wait, takes_last = begin_probes(record), false
local leases = {}
if not wait then
  leases = read_leases(record.keys.leases)
  wait, takes_last = grant(record, leases)
end
if record.is_extended and not record.changed then
  save(record, name)
end
finish(record, name)
if takes_last then
  publish({ int(record.epoch), 'slots_taken', int(first_end(leases, has_begun)) }, name)
end
return { wait and 0 or 1, int(wait or 0), row(record) }
