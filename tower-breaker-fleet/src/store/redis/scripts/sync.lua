-- The heartbeat of a process, for all of its circuits.
--
-- KEYS for each circuit: record, votes, failures, leases, members, local.
-- ARGV: 3 instance, 4 lifetime, 5 grace; then for each circuit: name, member (0 or 1), vote (0 or 1),
--   time since the last success ('' unknown), ages of the consecutive failures, separated by spaces;
--   least votes, share, limit of consecutive failures, their span, open time;
--   local open time ('' unknown, 0 not open, 'until_reset');
--   the known record: epoch, state, remaining, override, remaining of the override, reason, by.
-- Returns for each circuit: members, open members, votes, votes needed, warming up (0 or 1), local open
-- time, and the record if it is newer than the known one.
local PER_CIRCUIT_KEYS, PER_CIRCUIT_ARGS = 6, 18
local instance, lifetime, grace = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

-- The sorted set of members has other entries, with scores that are larger than each time. They are
-- lost together with the members. The names of members begin with a colon. A member that is open on
-- its local evidence has another entry, so that the open members are counted without a look at each.
local LARGEST_TIME, WARM_UP, CLOCK, SUCCESS, OPEN = '1e14', 1e15, 2e15, 3e15, 4e15
local CLOCK_TOLERANCE = 1000

-- How long an entry without an end is kept: instance names may be random.
local LOCAL_UNTIL_RESET_KEPT = 24 * 3600 * 1000

local function score_of(key, entry, base)
  local score = redis.call('ZSCORE', key, entry)
  return score and tonumber(score) - base
end

-- Takes a record from a process that knows a later one than the store.
local function restore(record, a)
  local epoch, state, manual = tonumber(ARGV[a + 12]), ARGV[a + 13], ARGV[a + 15]
  -- In an empty store nothing means closed already.
  if epoch <= record.epoch or (record.epoch == 0 and state == 'closed' and manual == '') then
    return
  end
  local length = tonumber(ARGV[a + 14])
  if state ~= 'open' then
    length = 0
  end
  -- The leases of a half-open circuit are lost.
  record.epoch, record.state = epoch, state == 'closed' and 'closed' or 'open'
  record.length, record.ends = length, length and now + length
  record.manual, record.manual_length = manual, manual ~= '' and tonumber(ARGV[a + 16]) or nil
  record.manual_ends = record.manual_length and now + record.manual_length
  record.reason, record.by, record.grace = ARGV[a + 17], ARGV[a + 18], grace
  record.changed = true
  clear_round(record)
  if record.manual_ends and record.manual_ends <= now then
    release(record, record.manual_ends, 'override ended', record.by, grace)
  end
end

-- Stores how long the process is open on its local evidence, and returns it.
local function update_local(key, value)
  local timed, endless = 't:' .. instance, 'r:' .. instance
  if value == '' then
    local ends = score_of(key, timed, 0)
    if ends and ends > now then
      return int(ends - now)
    end
    ends = score_of(key, endless, 0)
    return ends and ends > now and 'until_reset' or '0'
  end
  redis.call('ZREM', key, timed, endless)
  if value ~= '0' then
    local is_endless = value == 'until_reset'
    local length = is_endless and LOCAL_UNTIL_RESET_KEPT or tonumber(value)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now))
    redis.call('ZADD', key, int(now + length), is_endless and endless or timed)
    extend(key, length)
  end
  return value
end

-- Drops members and votes that are over.
local function expire(keys, members, own)
  local clock = score_of(members, 'clock', CLOCK)
  if clock and clock > now + CLOCK_TOLERANCE then
    -- The clock has stepped back, so their ends would be too late: as after a loss of data.
    redis.call('DEL', members, own, keys.votes, keys.failures)
    return
  end
  -- Expired members are kept for one more lifetime, because the warm-up depends on their number.
  redis.call('ZREMRANGEBYSCORE', members, '-inf', int(now - lifetime))
  redis.call('ZREMRANGEBYSCORE', keys.votes, '-inf', int(now))
  if redis.call('ZCOUNT', members, '-inf', LARGEST_TIME) == 0 then
    redis.call('DEL', members)
  elseif redis.call('ZCOUNT', members, '(' .. int(now), LARGEST_TIME) == 0 then
    redis.call('ZREM', members, 'warm_up')
  end
end

-- Returns the time of the latest success of a member, or 0.
local function update_success(members, a)
  local latest = score_of(members, 'success', SUCCESS) or 0
  local age = tonumber(ARGV[a + 4])
  if ARGV[a + 2] == '1' and age and now - age > latest then
    latest = now - age
    redis.call('ZADD', members, int(SUCCESS + latest), 'success')
  end
  return math.min(latest, now)
end

-- Returns for how long the process counts as an open member from now on.
local function open_membership(local_open)
  return local_open == 'until_reset' and lifetime or math.min(tonumber(local_open), lifetime)
end

-- Returns how many members are open on their local evidence.
local function count_open(members)
  redis.call('ZREMRANGEBYSCORE', members, int(OPEN), int(OPEN + now))
  return redis.call('ZCOUNT', members, int(OPEN), '+inf')
end

-- Stores the membership and the ballot. Returns whether the vote counts, and whether failures count.
local function set_member(record, members, success, local_open, a)
  local keys = record.keys
  local counts = ARGV[a + 2] == '1' and record.state == 'closed' and record.manual == ''
  local vote, failed_at = counts and ARGV[a + 3] == '1', {}
  for age in string.gmatch(counts and ARGV[a + 5] or '', '%d+') do
    if now - age >= success then
      failed_at[#failed_at + 1] = int(now - age)
    end
  end
  if ARGV[a + 2] == '1' then
    redis.call('ZADD', members, int(now + lifetime), ':' .. instance, int(CLOCK + now), 'clock',
      int(OPEN + now + open_membership(local_open)), 'open:' .. instance)
    redis.call('ZADD', members, 'NX', int(WARM_UP + now + lifetime), 'warm_up')
    extend(members, 2 * lifetime)
  else
    redis.call('ZREM', members, ':' .. instance, 'open:' .. instance)
  end
  if vote then
    redis.call('ZADD', keys.votes, int(now + lifetime), instance)
    extend(keys.votes, lifetime)
  else
    redis.call('ZREM', keys.votes, instance)
  end
  if #failed_at > 0 then
    redis.call('HSET', keys.failures, instance, table.concat(failed_at, ' '))
    extend(keys.failures, lifetime)
  else
    redis.call('HDEL', keys.failures, instance)
  end
  return vote, #failed_at > 0
end

-- Returns whether the failures of the live members since the latest success open the circuit.
local function are_failures_enough(key, members, success, limit, span)
  local count, first, flat = 0, now, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local ends = score_of(members, ':' .. flat[i], 0)
    if ends and ends > now then
      for at in string.gmatch(flat[i + 1], '%d+') do
        at = tonumber(at)
        if at >= success then
          count, first = count + 1, math.min(first, at)
        end
      end
    else
      redis.call('HDEL', key, flat[i])
    end
  end
  return limit > 0 and count >= limit and now - first >= span
end

local function sync(k, a)
  local keys, members, own = keys_at(k + 1), KEYS[k + 5], KEYS[k + 6]
  local name, known_epoch = ARGV[a + 1], tonumber(ARGV[a + 12])
  local at_least, share = tonumber(ARGV[a + 6]), tonumber(ARGV[a + 7])
  local limit, span = tonumber(ARGV[a + 8]), tonumber(ARGV[a + 9])
  local record = read(keys)
  restore(record, a)
  expire(keys, members, own)
  local local_open = update_local(own, ARGV[a + 11])
  local success = update_success(members, a)
  local vote, has_failures = set_member(record, members, success, local_open, a)

  local live = redis.call('ZCOUNT', members, '(' .. int(now), LARGEST_TIME)
  local expired = redis.call('ZCOUNT', members, '-inf', int(now))
  local votes = redis.call('ZCARD', keys.votes)
  -- A product such as 0.07 * 100 is slightly above the whole number.
  local needed = math.max(at_least, math.ceil(share * live - 1e-9), 1)
  local warm_up = score_of(members, 'warm_up', WARM_UP)
  local is_warming_up = share > 0 and ((warm_up and warm_up > now) or expired > live)

  local reason
  if is_warming_up then
    reason = nil
  elseif vote and votes >= needed then
    reason = 'quorum'
  elseif has_failures and are_failures_enough(keys.failures, members, success, limit, span) then
    reason = 'consecutive failures'
  end
  if reason then
    -- The store may have lost or forgotten the record of a closed circuit.
    record.epoch = math.max(record.epoch, known_epoch)
    begin_epoch(record, now, 'open', tonumber(ARGV[a + 10]), reason, instance, grace)
    votes = 0
  end
  if record.epoch > 0 and not record.changed and not redis.call('ZSCORE', KEYS[#KEYS - 1], name) then
    -- The list of names has been evicted.
    save(record, name)
  end
  finish(record, name)
  local is_closed = record.state == 'closed' and record.manual == ''
  local open = is_closed and count_open(members) or 0
  local reply = record.epoch > known_epoch and row(record) or {}
  return { live, open, votes, needed, is_warming_up and 1 or 0, local_open, reply }
end

local replies = {}
for i = 0, (#KEYS - 2) / PER_CIRCUIT_KEYS - 1 do
  replies[i + 1] = sync(PER_CIRCUIT_KEYS * i, 5 + PER_CIRCUIT_ARGS * i)
end
return replies
