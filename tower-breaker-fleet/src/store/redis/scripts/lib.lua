-- Precedes each script. The rules are those of rules.rs; this is how Redis stores them.
--
-- ARGV[1] and ARGV[2] are the command that publishes, and the channel. The last two keys are the
-- names of the circuits with a record, and when the records expire. All times are in milliseconds.
-- '' is "none" in arguments, fields and replies: no override, open until it is reset.

-- The server's time, because the clocks of the processes differ.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Lua prints a number of more than 14 digits with an exponent.
local function int(number)
  return string.format('%.0f', number)
end

local function text_of(number)
  return number and int(number) or ''
end

-- Keeps a key for at least this long. Processes with other settings may need it for longer.
local function extend(key, length)
  if redis.call('PTTL', key) < length then
    redis.call('PEXPIRE', key, int(length))
  end
end

-- Publishes fields that are separated by tabs. The name comes last: it may contain tabs.
local function publish(fields, name)
  for i, field in ipairs(fields) do
    fields[i] = string.gsub(field, '%c', ' ')
  end
  fields[#fields + 1] = name
  redis.call(ARGV[1], ARGV[2], table.concat(fields, '\t'))
end

-- Returns the fields of a record that a process reads.
local function row(record)
  local remaining = ''
  if record.ends or record.state ~= 'open' then
    remaining = int(math.max((record.ends or now) - now, 0))
  end
  local manual_remaining = record.manual_ends and int(math.max(record.manual_ends - now, 0)) or ''
  return {
    int(record.epoch), record.state, remaining, record.manual, manual_remaining, record.reason, record.by
  }
end

local function empty_record(keys)
  return {
    keys = keys, epoch = 0, state = 'closed', ends = now, length = 0, manual = '', reason = '', by = '',
    grace = 0, successes = 0, failures = 0
  }
end

-- Deletes what must not count in another epoch: ballots and leases.
local function clear_round(record)
  record.successes, record.failures = 0, 0
  if record.keys.votes then
    redis.call('DEL', record.keys.votes, record.keys.failures, record.keys.leases)
  end
end

-- Begins a new epoch. It is at least the time, so that epochs grow also after a loss of data.
-- A length of nil: the circuit stays open until it is reset.
local function begin_epoch(record, at, state, length, reason, by, grace)
  record.epoch = math.max(record.epoch + 1, at)
  record.state, record.length, record.ends = state, length, length and at + length
  record.reason, record.by, record.grace = reason, by, grace
  record.changed = true
  clear_round(record)
end

-- Ends an override. After a forced open circuit, probes come first.
local function release(record, at, reason, by, grace)
  local state = record.manual == 'forced_open' and 'open' or 'closed'
  record.manual, record.manual_ends, record.manual_length = '', nil, nil
  begin_epoch(record, at, state, 0, reason, by, grace)
end

-- A deadline is never further ahead than its length, even if the clock has stepped back.
-- A text that is no number fails.
local function deadline(ends, length)
  if ends and ends ~= '' then
    return math.min(tonumber(ends), now + tonumber(length)), tonumber(length)
  end
end

-- Returns the record of a circuit. An override whose time is over ends here: its new epoch depends on
-- that time and not on the reader's.
local function read(keys)
  local f = redis.call('HMGET', keys.record, 'epoch', 'state', 'until', 'length', 'manual', 'manual_until',
    'manual_length', 'reason', 'by', 'grace', 'successes', 'failures')
  if not f[1] then
    return empty_record(keys)
  end
  local record = {
    keys = keys, epoch = tonumber(f[1]), state = f[2], manual = f[5] or '', reason = f[8] or '', by = f[9] or '',
    grace = tonumber(f[10]) or 0, successes = tonumber(f[11]) or 0, failures = tonumber(f[12]) or 0
  }
  record.ends, record.length = deadline(f[3], f[4])
  record.manual_ends, record.manual_length = deadline(f[6], f[7])
  if record.manual_ends and record.manual_ends <= now then
    release(record, record.manual_ends, 'override ended', record.by, record.grace)
  end
  if record.manual == '' and record.ends and record.ends + record.grace <= now then
    return empty_record(keys)
  end
  return record
end

-- Stores a record, and keeps its name in the list of names.
local function save(record, name)
  redis.call('HSET', record.keys.record, 'epoch', int(record.epoch), 'state', record.state,
    'until', text_of(record.ends), 'length', text_of(record.length),
    'manual', record.manual, 'manual_until', text_of(record.manual_ends),
    'manual_length', text_of(record.manual_length), 'reason', record.reason, 'by', record.by,
    'grace', int(record.grace), 'successes', int(record.successes), 'failures', int(record.failures))
  local ends = record.ends
  if record.manual ~= '' then
    ends = record.manual_ends
  end
  if ends then
    redis.call('PEXPIREAT', record.keys.record, int(ends + record.grace))
  else
    redis.call('PERSIST', record.keys.record)
  end
  local names, expiries = KEYS[#KEYS - 1], KEYS[#KEYS]
  redis.call('ZADD', names, 0, name)
  redis.call('ZADD', expiries, ends and int(ends + record.grace) or '+inf', name)
  -- Each change removes a few names without a record, so that the list does not grow for ever.
  local expired = redis.call('ZRANGEBYSCORE', expiries, '-inf', int(now), 'LIMIT', 0, 8)
  if #expired > 0 then
    redis.call('ZREM', names, unpack(expired))
    redis.call('ZREM', expiries, unpack(expired))
  end
end

-- Stores and publishes a record that this script has changed.
local function finish(record, name)
  if record.changed then
    save(record, name)
    publish(row(record), name)
  end
end

-- Returns the keys of a circuit, which begin at KEYS[first].
local function keys_at(first)
  return { record = KEYS[first], votes = KEYS[first + 1], failures = KEYS[first + 2], leases = KEYS[first + 3] }
end

-- Returns the leases of a circuit by instance. A lease is kept for one more length after its end,
-- for a late outcome.
local function read_leases(key)
  local leases = {}
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local ends, length, weight = string.match(flat[i + 1], '^(%d+):(%d+):([%d.]+)$')
    ends, length = deadline(ends, length)
    if ends and ends + length > now then
      leases[flat[i]] = { ends = ends, length = length, weight = tonumber(weight), is_live = ends > now }
    else
      redis.call('HDEL', key, flat[i])
    end
  end
  return leases
end
