-- The circuits that the processes of a fleet share. Run it in one piece: it is one transaction.
--
-- It may run again, and at the same time in several sessions. The functions run with the privileges
-- of the role that runs this file. A process needs only these privileges:
--
--   GRANT USAGE ON SCHEMA tower_breaker TO app;
--   GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tower_breaker TO app;
--
-- The rules are those of `src/rules`, which explains them. All times are milliseconds since 1970 by
-- the clock of this server. Each deadline has its length beside it: if the clock is set back,
-- the deadline is at most its length ahead.

BEGIN;
-- The schema of all tables and functions. For another one, change only this line.
SET LOCAL breaker_setup.schema = 'tower_breaker';

SELECT pg_advisory_xact_lock(hashtextextended('tower_breaker_schema', 0));
DO $$
DECLARE name text := current_setting('breaker_setup.schema');
BEGIN
  -- CREATE SCHEMA IF NOT EXISTS needs a privilege even if the schema exists.
  IF to_regnamespace(quote_ident(name)) IS NULL THEN EXECUTE format('CREATE SCHEMA %I', name); END IF;
  -- The functions keep this path. With pg_temp at its end, no temporary table can replace a table.
  PERFORM set_config('search_path', format('%I, pg_temp', name), true);
END $$;
SET LOCAL client_min_messages = warning;

DO $$
DECLARE version int;
BEGIN
  IF to_regprocedure('breaker_version()') IS NOT NULL THEN
    EXECUTE 'SELECT breaker_version()' INTO version;
    IF version > 2 THEN
      RAISE EXCEPTION 'the schema has version % already, and this is version 2', version
        USING ERRCODE = 'feature_not_supported';
    END IF;
  END IF;
END $$;

-- The version that a process compares when it connects. A change after which processes of another
-- version cannot use the functions increases it.
CREATE OR REPLACE FUNCTION breaker_version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2';

-- What the fleet has decided.
CREATE TABLE IF NOT EXISTS breaker_circuit (
  namespace text COLLATE "C" NOT NULL,
  circuit text COLLATE "C" NOT NULL,
  epoch bigint NOT NULL,
  state text NOT NULL,                -- closed, open, half_open
  until_ms bigint,                    -- null: until it is reset
  until_length_ms bigint,
  manual text,                        -- forced_open, forced_closed; null: no override
  manual_until_ms bigint,             -- null: until it is released
  manual_length_ms bigint,
  reason text NOT NULL,
  decided_by text NOT NULL,
  grace_ms bigint NOT NULL,           -- how long the row is valid after until_ms
  successes bigint NOT NULL,          -- outcomes of probes in this epoch
  failures bigint NOT NULL,
  slots_until_ms bigint,              -- when the first probe slot is free; null: one is free
  changed_ms bigint NOT NULL,         -- when it was published
  PRIMARY KEY (namespace, circuit)
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS breaker_circuit_changed ON breaker_circuit (namespace, changed_ms);

-- The processes that use a circuit, and their ballots. A ballot counts only in its epoch, so a
-- decision clears all ballots without a write.
--
-- Unlogged: heartbeats write no log. A crash empties the table, and the warm-up begins again.
CREATE UNLOGGED TABLE IF NOT EXISTS breaker_member (
  namespace text COLLATE "C" NOT NULL,
  circuit text COLLATE "C" NOT NULL,
  instance text COLLATE "C" NOT NULL,
  until_ms bigint NOT NULL,
  lifetime_ms bigint NOT NULL,
  warm_until_ms bigint NOT NULL,      -- when the first lifetime of the first live member was over
  ballot_epoch bigint NOT NULL,
  vote boolean NOT NULL,
  success_ms bigint,                  -- the latest success of a member when this row was written
  failed_ms bigint[] NOT NULL,        -- when the consecutive failures of the process happened
  PRIMARY KEY (namespace, circuit, instance)
) WITH (fillfactor = 50);

-- The leases of probes. A lease counts only in its epoch.
CREATE UNLOGGED TABLE IF NOT EXISTS breaker_lease (
  namespace text COLLATE "C" NOT NULL,
  circuit text COLLATE "C" NOT NULL,
  instance text COLLATE "C" NOT NULL,
  epoch bigint NOT NULL,
  until_ms bigint NOT NULL,
  length_ms bigint NOT NULL,
  weight double precision NOT NULL,
  PRIMARY KEY (namespace, circuit, instance)
) WITH (fillfactor = 50);

-- How long processes are open on their local evidence, so that it outlives them.
CREATE TABLE IF NOT EXISTS breaker_local_open (
  namespace text COLLATE "C" NOT NULL,
  circuit text COLLATE "C" NOT NULL,
  instance text COLLATE "C" NOT NULL,
  until_ms bigint NOT NULL,
  length_ms bigint NOT NULL,
  until_reset boolean NOT NULL,
  PRIMARY KEY (namespace, circuit, instance)
) WITH (fillfactor = 50);

CREATE OR REPLACE FUNCTION breaker_now() RETURNS bigint LANGUAGE sql AS
$$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

CREATE OR REPLACE FUNCTION breaker_lock_key(p_namespace text, p_circuit text) RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT hashtextextended(concat_ws(chr(31), 'breaker', current_schema(), p_namespace, p_circuit), 0) $$;

-- Two votes at the same time would not see each other. So messages that can change the record wait
-- for each other. The lock ends with the transaction, which also works behind a pooler. Each
-- statement after it reads what the last holder has committed.
CREATE OR REPLACE FUNCTION breaker_lock(p_namespace text, p_circuit text) RETURNS void LANGUAGE sql AS
$$ SELECT pg_advisory_xact_lock(breaker_lock_key(p_namespace, p_circuit)) $$;

-- The channel of a namespace. A name of a channel has at most 63 bytes.
CREATE OR REPLACE FUNCTION breaker_channel(p_namespace text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS
$$
  -- A server in the mode FIPS has no md5.
  SELECT 'breaker_' || left(
    encode(sha256(convert_to(concat_ws(chr(31), current_schema(), p_namespace), 'UTF8')), 'hex'), 32)
$$;

-- Payloads have less than 8000 bytes. An update may be lost, an error would undo the decision.
CREATE OR REPLACE FUNCTION breaker_notify(p_namespace text, message jsonb) RETURNS void LANGUAGE sql AS
$$ SELECT pg_notify(breaker_channel(p_namespace), message::text) WHERE octet_length(message::text) < 8000 $$;

-- Begins a new epoch, in which no ballot, lease or outcome of the last one counts.
CREATE OR REPLACE FUNCTION breaker_begin_epoch(
  c breaker_circuit, now_ms bigint, p_state text, p_length_ms bigint, p_reason text, p_by text, p_grace_ms bigint
) RETURNS breaker_circuit LANGUAGE plpgsql AS $$
BEGIN
  c.epoch := greatest(c.epoch + 1, now_ms);
  c.state := p_state;
  c.until_ms := now_ms + p_length_ms;
  c.until_length_ms := p_length_ms;
  c.reason := p_reason;
  c.decided_by := p_by;
  c.grace_ms := p_grace_ms;
  c.successes := 0;
  c.failures := 0;
  c.slots_until_ms := NULL;
  RETURN c;
END $$;

-- Ends an override. After a forced open circuit, probes come first.
CREATE OR REPLACE FUNCTION breaker_release(
  c breaker_circuit, now_ms bigint, p_reason text, p_by text, p_grace_ms bigint
) RETURNS breaker_circuit LANGUAGE plpgsql AS $$
DECLARE next_state text := CASE WHEN c.manual = 'forced_open' THEN 'open' ELSE 'closed' END;
BEGIN
  c.manual := NULL;
  c.manual_until_ms := NULL;
  c.manual_length_ms := NULL;
  RETURN breaker_begin_epoch(c, now_ms, next_state, 0, p_reason, p_by, p_grace_ms);
END $$;

-- A circuit that the store does not know.
CREATE OR REPLACE FUNCTION breaker_unknown(p_namespace text, p_circuit text) RETURNS breaker_circuit LANGUAGE plpgsql AS $$
DECLARE c breaker_circuit;
BEGIN
  c.namespace := p_namespace;
  c.circuit := p_circuit;
  c.epoch := 0;
  c.state := 'closed';
  c.until_ms := 0;
  c.until_length_ms := 0;
  c.reason := '';
  c.decided_by := '';
  c.grace_ms := 0;
  c.successes := 0;
  c.failures := 0;
  c.changed_ms := 0;
  RETURN c;
END $$;

CREATE OR REPLACE FUNCTION breaker_stored(p_namespace text, p_circuit text) RETURNS breaker_circuit LANGUAGE plpgsql AS $$
DECLARE c breaker_circuit;
BEGIN
  SELECT * INTO c FROM breaker_circuit b WHERE b.namespace = p_namespace AND b.circuit = p_circuit;
  IF NOT FOUND THEN c := breaker_unknown(p_namespace, p_circuit); END IF;
  RETURN c;
END $$;

-- Whether the clock was set back after the deadlines were stored. They are stored again, or they
-- would stay ahead until the clock reaches the old time. Two sessions may differ by less than 1 s.
CREATE OR REPLACE FUNCTION breaker_is_ahead(c breaker_circuit, now_ms bigint) RETURNS boolean LANGUAGE sql AS $$
  SELECT coalesce(c.until_ms > now_ms + c.until_length_ms + 1000, false)
    OR coalesce(c.manual_until_ms > now_ms + c.manual_length_ms + 1000, false)
$$;

-- The circuit at a time: overrides end by themselves, and old rows are invalid.
--
-- The epoch after an override depends on the time at which it ended. So a reader, which stores
-- nothing, returns the same epoch as a later writer.
CREATE OR REPLACE FUNCTION breaker_at(c breaker_circuit, now_ms bigint) RETURNS breaker_circuit LANGUAGE plpgsql AS $$
BEGIN
  IF c.until_ms > now_ms + c.until_length_ms THEN c.until_ms := now_ms + c.until_length_ms; END IF;
  IF c.manual_until_ms > now_ms + c.manual_length_ms THEN c.manual_until_ms := now_ms + c.manual_length_ms; END IF;
  IF c.manual_until_ms <= now_ms THEN
    c := breaker_release(c, c.manual_until_ms, 'override ended', c.decided_by, c.grace_ms);
  END IF;
  IF c.manual IS NULL AND c.until_ms + c.grace_ms <= now_ms THEN
    RETURN breaker_unknown(c.namespace, c.circuit);
  END IF;
  RETURN c;
END $$;

-- The record as the messages have it.
CREATE OR REPLACE FUNCTION breaker_record(c breaker_circuit, now_ms bigint) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object(
    'circuit', c.circuit,
    'epoch', c.epoch,
    'state', c.state,
    'remaining_ms', CASE WHEN c.state <> 'open' OR c.until_ms IS NOT NULL THEN greatest(0, c.until_ms - now_ms) END,
    'manual', c.manual,
    'manual_remaining_ms', CASE WHEN c.manual_until_ms IS NOT NULL THEN greatest(0, c.manual_until_ms - now_ms) END,
    'reason', c.reason,
    'by', c.decided_by)
$$;

-- The update that says that no probe slot is free. Null: one is free.
CREATE OR REPLACE FUNCTION breaker_slots_taken(c breaker_circuit, now_ms bigint) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('slots_taken', jsonb_build_object(
    'circuit', c.circuit, 'epoch', c.epoch, 'retry_ms', c.slots_until_ms - now_ms))
  WHERE c.slots_until_ms > now_ms
$$;

CREATE OR REPLACE FUNCTION breaker_store(c breaker_circuit) RETURNS void LANGUAGE sql AS $$
  INSERT INTO breaker_circuit SELECT (c).*
  ON CONFLICT (namespace, circuit) DO UPDATE SET
    epoch = excluded.epoch, state = excluded.state,
    until_ms = excluded.until_ms, until_length_ms = excluded.until_length_ms,
    manual = excluded.manual, manual_until_ms = excluded.manual_until_ms, manual_length_ms = excluded.manual_length_ms,
    reason = excluded.reason, decided_by = excluded.decided_by, grace_ms = excluded.grace_ms,
    successes = excluded.successes, failures = excluded.failures,
    slots_until_ms = excluded.slots_until_ms, changed_ms = excluded.changed_ms
$$;

-- Stores the circuit, and publishes it: a decision, or a probe slot that has become free.
CREATE OR REPLACE FUNCTION breaker_publish(c breaker_circuit, now_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  c.changed_ms := breaker_now();
  PERFORM breaker_store(c);
  PERFORM breaker_notify(c.namespace, jsonb_build_object('record', breaker_record(c, now_ms)));
END $$;

-- Takes a record from a process that knows a later one: a failover or a restore has lost it.
CREATE OR REPLACE FUNCTION breaker_restored(
  c breaker_circuit, known jsonb, p_grace_ms bigint, now_ms bigint
) RETURNS breaker_circuit LANGUAGE plpgsql AS $$
BEGIN
  -- The leases of a half-open circuit are lost. It comes back as open with its time over.
  c.state := CASE known->>'state' WHEN 'closed' THEN 'closed' ELSE 'open' END;
  c.until_length_ms := CASE known->>'state' WHEN 'open' THEN (known->>'remaining_ms')::bigint ELSE 0 END;
  c.until_ms := now_ms + c.until_length_ms;
  c.epoch := (known->>'epoch')::bigint;
  c.manual := known->>'manual';
  c.manual_length_ms := CASE WHEN c.manual IS NOT NULL THEN (known->>'manual_remaining_ms')::bigint END;
  c.manual_until_ms := now_ms + c.manual_length_ms;
  c.reason := known->>'reason';
  c.decided_by := known->>'by';
  c.grace_ms := p_grace_ms;
  c.successes := 0;
  c.failures := 0;
  c.slots_until_ms := NULL;
  IF c.manual_until_ms <= now_ms THEN
    c := breaker_release(c, now_ms, 'override ended', c.decided_by, p_grace_ms);
  END IF;
  RETURN c;
END $$;

-- Stores how long a process is open on its local evidence, and returns what is stored.
CREATE OR REPLACE FUNCTION breaker_sync_local(
  p_namespace text, p_circuit text, p_instance text, p_local jsonb, now_ms bigint
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  -- Instance names may be random. An entry without an end is kept for a day after its last message.
  length_or_day bigint := CASE WHEN p_local = '"until_reset"' THEN 86400000 ELSE (p_local->>'for_ms')::bigint END;
  rest bigint;
  endless boolean;
BEGIN
  IF length_or_day > 0 THEN
    INSERT INTO breaker_local_open VALUES (
      p_namespace, p_circuit, p_instance, now_ms + length_or_day, length_or_day, p_local = '"until_reset"')
    ON CONFLICT (namespace, circuit, instance) DO UPDATE SET
      until_ms = excluded.until_ms, length_ms = excluded.length_ms, until_reset = excluded.until_reset;
    RETURN p_local;
  ELSIF p_local <> '"unknown"' THEN
    DELETE FROM breaker_local_open l
    WHERE l.namespace = p_namespace AND l.circuit = p_circuit AND l.instance = p_instance;
    RETURN '"no"';
  END IF;
  SELECT least(l.until_ms - now_ms, l.length_ms), l.until_reset INTO rest, endless FROM breaker_local_open l
  WHERE l.namespace = p_namespace AND l.circuit = p_circuit AND l.instance = p_instance;
  RETURN CASE
    WHEN rest > 0 AND endless THEN '"until_reset"'::jsonb
    WHEN rest > 0 THEN jsonb_build_object('for_ms', rest)
    ELSE '"no"'::jsonb
  END;
END $$;

-- A member from before the clock was set back no longer counts. Two sessions may differ by less than 1 s.
CREATE OR REPLACE FUNCTION breaker_is_live(b breaker_member, now_ms bigint) RETURNS boolean LANGUAGE sql AS
$$ SELECT b.until_ms > now_ms AND b.until_ms <= now_ms + b.lifetime_ms + 1000 $$;

-- Whether the failures of all members since the latest success open the circuit.
CREATE OR REPLACE FUNCTION breaker_are_failures_enough(
  p_namespace text, p_circuit text, ballot_round bigint, success bigint, m jsonb, now_ms bigint
) RETURNS boolean LANGUAGE sql AS $$
  SELECT count(*) >= (m->>'failure_limit')::bigint AND min(failed_at) + (m->>'failure_span_ms')::bigint <= now_ms
  FROM breaker_member b, unnest(b.failed_ms) AS failed_at
  WHERE b.namespace = p_namespace AND b.circuit = p_circuit AND b.ballot_epoch = ballot_round
    AND breaker_is_live(b, now_ms) AND failed_at >= coalesce(success, 0)
$$;

-- How many live members are open on their local evidence.
CREATE OR REPLACE FUNCTION breaker_open_members(p_namespace text, p_circuit text, now_ms bigint) RETURNS bigint LANGUAGE sql AS $$
  SELECT count(*)
  FROM breaker_local_open l JOIN breaker_member b USING (namespace, circuit, instance)
  WHERE l.namespace = p_namespace AND l.circuit = p_circuit AND l.until_ms > now_ms AND breaker_is_live(b, now_ms)
$$;

-- One circuit of a heartbeat.
CREATE OR REPLACE FUNCTION breaker_sync_circuit(p_namespace text, request jsonb, m jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  p_circuit text := m->>'circuit';
  p_instance text := request->>'instance';
  lifetime bigint := (request->>'lifetime_ms')::bigint;
  grace bigint := (request->>'grace_ms')::bigint;
  is_member boolean := (m->>'member')::boolean;
  p_vote boolean := (m->>'vote')::boolean AND is_member;
  sums_failures boolean := is_member AND (m->>'failure_limit')::bigint > 0 AND m->'failure_ages_ms' <> '[]';
  share double precision := coalesce((m->>'share')::double precision, 0);
  known jsonb := m->'known';
  known_epoch bigint := coalesce((m->'known'->>'epoch')::bigint, 0);
  -- In an empty store a circuit is closed already.
  is_known_closed boolean := known->>'state' = 'closed' AND known->>'manual' IS NULL;
  now_ms bigint := breaker_now();
  stored breaker_circuit := breaker_stored(p_namespace, p_circuit);
  c breaker_circuit := breaker_at(stored, now_ms);
  changed boolean;
  counts boolean;
  ballot_round bigint;
  members bigint;
  open_members bigint := 0;
  votes bigint;
  expired bigint;
  success bigint;
  failed bigint[];
  warm_until bigint;
  needed bigint;
  is_warming_up boolean;
  why text;
  local_open jsonb;
BEGIN
  IF p_vote OR sums_failures OR c.epoch > stored.epoch
    OR (known_epoch > c.epoch AND NOT (c.epoch = 0 AND is_known_closed)) OR breaker_is_ahead(stored, now_ms)
  THEN
    PERFORM breaker_lock(p_namespace, p_circuit);
    now_ms := breaker_now();
    stored := breaker_stored(p_namespace, p_circuit);
    c := breaker_at(stored, now_ms);
    changed := c.epoch > stored.epoch;
    IF known_epoch > c.epoch AND NOT (c.epoch = 0 AND is_known_closed) THEN
      c := breaker_restored(c, known, grace, now_ms);
      changed := true;
    END IF;
  END IF;
  local_open := breaker_sync_local(p_namespace, p_circuit, p_instance, m->'local', now_ms);

  -- That an old row became invalid is no decision: it does not clear ballots.
  ballot_round := CASE WHEN c.epoch = 0 THEN stored.epoch ELSE c.epoch END;
  counts := is_member AND c.state = 'closed' AND c.manual IS NULL;
  p_vote := p_vote AND counts;
  -- Expired members are kept for another lifetime, because the warm-up depends on their number.
  SELECT
    count(*) FILTER (WHERE o.is_live), count(*) FILTER (WHERE o.is_live AND o.counts AND o.vote),
    count(*) FILTER (WHERE o.is_other AND NOT o.is_live), min(o.warm) FILTER (WHERE o.was_live), max(o.success)
  INTO members, votes, expired, warm_until, success
  FROM (
    SELECT b.vote, b.instance <> p_instance AS is_other, b.ballot_epoch = ballot_round AS counts,
      breaker_is_live(b, now_ms) AS was_live, b.instance <> p_instance AND breaker_is_live(b, now_ms) AS is_live,
      least(b.warm_until_ms, now_ms + b.lifetime_ms) AS warm,
      -- A success from before the clock was set back would be later than all failures.
      CASE WHEN b.success_ms <= now_ms + 1000 THEN least(b.success_ms, now_ms) END AS success
    FROM breaker_member b
    WHERE b.namespace = p_namespace AND b.circuit = p_circuit AND b.until_ms + b.lifetime_ms > now_ms) o;
  IF is_member THEN
    warm_until := coalesce(warm_until, now_ms + lifetime);
    success := greatest(success, now_ms - (m->>'since_success_ms')::bigint);
    failed := ARRAY(
      SELECT now_ms - age::bigint FROM jsonb_array_elements_text(m->'failure_ages_ms') AS age
      WHERE counts AND now_ms - age::bigint >= coalesce(success, 0));
    INSERT INTO breaker_member VALUES (
      p_namespace, p_circuit, p_instance, now_ms + lifetime, lifetime, warm_until, ballot_round, p_vote, success, failed)
    ON CONFLICT (namespace, circuit, instance) DO UPDATE SET
      until_ms = excluded.until_ms, lifetime_ms = excluded.lifetime_ms, warm_until_ms = excluded.warm_until_ms,
      ballot_epoch = excluded.ballot_epoch, vote = excluded.vote,
      success_ms = excluded.success_ms, failed_ms = excluded.failed_ms;
    members := members + 1;
    votes := votes + p_vote::int;
  ELSE
    DELETE FROM breaker_member b
    WHERE b.namespace = p_namespace AND b.circuit = p_circuit AND b.instance = p_instance;
  END IF;

  -- Products such as 0.07 × 100 are slightly above the whole number.
  needed := greatest((m->>'at_least')::bigint, ceil(share * members - 1e-9)::bigint, 1);
  -- Without a share, the votes needed do not depend on the members that the store knows.
  is_warming_up := share > 0 AND (coalesce(warm_until > now_ms, false) OR expired > members);
  IF NOT is_warming_up AND p_vote AND votes >= needed THEN
    why := 'quorum';
  ELSIF NOT is_warming_up AND sums_failures AND cardinality(failed) > 0
    AND breaker_are_failures_enough(p_namespace, p_circuit, ballot_round, success, m, now_ms)
  THEN
    why := 'consecutive failures';
  END IF;
  IF why IS NOT NULL THEN
    c.epoch := greatest(c.epoch, known_epoch);
    c := breaker_begin_epoch(c, now_ms, 'open', (m->>'open_ms')::bigint, why, p_instance, grace);
    changed := true;
    votes := 0;
  END IF;
  IF changed THEN
    PERFORM breaker_publish(c, now_ms);
  ELSIF breaker_is_ahead(stored, now_ms) THEN
    PERFORM breaker_store(c);
  END IF;
  -- Otherwise the fleet decides for all members.
  IF c.state = 'closed' AND c.manual IS NULL THEN
    open_members := breaker_open_members(p_namespace, p_circuit, now_ms);
  END IF;
  RETURN jsonb_build_object(
    'members', members, 'open_members', open_members, 'votes', votes, 'votes_needed', needed,
    'warming_up', is_warming_up, 'local', local_open,
    'record', CASE WHEN c.epoch > known_epoch THEN breaker_record(c, now_ms) END);
END $$;

-- A heartbeat: membership, ballots, local open times. All processes lock circuits in the same
-- order, so none waits for another one that waits for it.
CREATE OR REPLACE FUNCTION breaker_sync(p_namespace text, request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE
  replies jsonb[];
  item record;
BEGIN
  FOR item IN
    SELECT e.position, e.message FROM jsonb_array_elements(request->'circuits') WITH ORDINALITY e (message, position)
    ORDER BY breaker_lock_key(p_namespace, e.message->>'circuit'), e.message->>'circuit'
  LOOP
    replies[item.position] := breaker_sync_circuit(p_namespace, request, item.message);
  END LOOP;
  RETURN coalesce(to_jsonb(replies), '[]');
END $$;

-- A lease from before the clock was set back is over.
CREATE OR REPLACE FUNCTION breaker_is_live(l breaker_lease, now_ms bigint) RETURNS boolean LANGUAGE sql AS
$$ SELECT l.until_ms > now_ms AND l.until_ms <= now_ms + l.length_ms + 1000 $$;

-- Asks for the lease of one probe, or extends it.
CREATE OR REPLACE FUNCTION breaker_lease(p_namespace text, request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE
  p_circuit text := request->>'circuit';
  p_instance text := request->>'instance';
  lease_length bigint := (request->>'lease_ms')::bigint;
  probes bigint := greatest((request->>'probes')::bigint, 1);
  lease_weight double precision := least(greatest(coalesce((request->>'weight')::double precision, 1), 0.001), 1);
  now_ms bigint;
  stored breaker_circuit;
  c breaker_circuit;
  own record;
  taken double precision;
  lease_until bigint;
  first_end bigint;
  begun bigint;
  had_begun boolean;
  granted boolean := false;
  retry bigint := 0;
  slots_taken boolean := false;
BEGIN
  PERFORM breaker_lock(p_namespace, p_circuit);
  now_ms := breaker_now();
  stored := breaker_stored(p_namespace, p_circuit);
  c := breaker_at(stored, now_ms);
  IF c.manual IS NULL AND c.state = 'open' THEN
    IF c.until_ms <= now_ms THEN
      c := breaker_begin_epoch(
        c, now_ms, 'half_open', lease_length, 'open time over', p_instance, (request->>'grace_ms')::bigint);
    ELSE
      -- Only a reset ends a time without an end. A process that asks all the same gets a bounded rate.
      retry := coalesce(c.until_ms - now_ms, lease_length);
    END IF;
  END IF;
  IF c.epoch > stored.epoch THEN PERFORM breaker_publish(c, now_ms); END IF;

  IF c.manual IS NULL AND c.state = 'half_open' THEN
    SELECT l.weight, l.until_ms INTO own FROM breaker_lease l
    WHERE l.namespace = p_namespace AND l.circuit = p_circuit AND l.instance = p_instance
      AND l.epoch = c.epoch AND breaker_is_live(l, now_ms);
    granted := FOUND;
    had_begun := granted AND own.weight > 1 - 1e-6;
    lease_until := now_ms + lease_length;
    IF granted THEN
      -- The message may be an earlier one that is late.
      lease_until := greatest(lease_until, own.until_ms);
      lease_weight := greatest(lease_weight, own.weight);
    ELSE
      SELECT coalesce(sum(l.weight), 0), min(l.until_ms) INTO taken, first_end
      FROM breaker_lease l
      WHERE l.namespace = p_namespace AND l.circuit = p_circuit AND l.epoch = c.epoch AND breaker_is_live(l, now_ms);
      -- Sums such as 0.1 + 0.2 are slightly above the exact sum.
      granted := taken + lease_weight <= probes + 1e-6;
      IF NOT granted THEN retry := greatest(coalesce(first_end - now_ms, 0), 1); END IF;
    END IF;
  END IF;

  IF granted THEN
    INSERT INTO breaker_lease VALUES (
      p_namespace, p_circuit, p_instance, c.epoch, lease_until, lease_until - now_ms, lease_weight)
    ON CONFLICT (namespace, circuit, instance) DO UPDATE SET
      epoch = excluded.epoch, until_ms = excluded.until_ms, length_ms = excluded.length_ms, weight = excluded.weight;
    IF lease_until > c.until_ms THEN
      c.until_ms := lease_until;
      c.until_length_ms := lease_until - now_ms;
    END IF;
    SELECT count(*), min(l.until_ms) INTO begun, first_end FROM breaker_lease l
    WHERE l.namespace = p_namespace AND l.circuit = p_circuit AND l.epoch = c.epoch AND breaker_is_live(l, now_ms)
      AND l.weight > 1 - 1e-6;
    IF lease_weight > 1 - 1e-6 AND NOT had_begun AND begun >= probes THEN
      c.slots_until_ms := greatest(first_end, now_ms + 1);
      c.changed_ms := breaker_now();
      PERFORM breaker_notify(p_namespace, breaker_slots_taken(c, now_ms));
    END IF;
    UPDATE breaker_circuit b SET
      until_ms = c.until_ms, until_length_ms = c.until_length_ms,
      slots_until_ms = c.slots_until_ms, changed_ms = greatest(b.changed_ms, c.changed_ms)
    WHERE b.namespace = p_namespace AND b.circuit = p_circuit;
  END IF;
  RETURN jsonb_build_object('granted', granted, 'retry_ms', retry, 'record', breaker_record(c, now_ms));
END $$;

-- Counts the outcome of a probe, and frees its slot. Without effect in another epoch, and without a
-- lease: the message is late or repeated.
CREATE OR REPLACE FUNCTION breaker_complete(p_namespace text, request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE
  p_circuit text := request->>'circuit';
  p_instance text := request->>'instance';
  outcome text := request->>'outcome';
  grace bigint := (request->>'grace_ms')::bigint;
  needed bigint := greatest((request->>'successes_to_close')::bigint, 1);
  failures_to_open bigint := greatest((request->>'probes')::bigint - needed, 0) + 1;
  now_ms bigint;
  stored breaker_circuit;
  c breaker_circuit;
  lease_weight double precision;
  changed boolean;
BEGIN
  PERFORM breaker_lock(p_namespace, p_circuit);
  now_ms := breaker_now();
  stored := breaker_stored(p_namespace, p_circuit);
  c := breaker_at(stored, now_ms);
  changed := c.epoch > stored.epoch;
  IF c.epoch = (request->>'epoch')::bigint AND c.state = 'half_open' AND c.manual IS NULL THEN
    -- A lease is kept for another length after its end: a server may be slower than the lease.
    DELETE FROM breaker_lease l
    WHERE l.namespace = p_namespace AND l.circuit = p_circuit AND l.instance = p_instance
      AND l.epoch = c.epoch AND l.until_ms + l.length_ms > now_ms
    RETURNING l.weight INTO lease_weight;
    IF lease_weight IS NOT NULL THEN
      -- The end of a reservation frees no slot that a process waits for.
      c.slots_until_ms := NULL;
      changed := changed OR outcome <> 'neutral' OR lease_weight > 1 - 1e-6;
      c.successes := c.successes + (outcome = 'success')::int;
      c.failures := c.failures + (outcome = 'failure')::int;
      IF outcome <> 'neutral' AND c.successes >= needed THEN
        c := breaker_begin_epoch(c, now_ms, 'closed', 0, 'probes succeeded', p_instance, grace);
      ELSIF outcome <> 'neutral' AND c.failures >= failures_to_open THEN
        c := breaker_begin_epoch(
          c, now_ms, 'open', (request->>'open_ms')::bigint, 'probes failed', p_instance, grace);
      END IF;
    END IF;
  END IF;
  IF changed THEN PERFORM breaker_publish(c, now_ms); END IF;
  RETURN breaker_record(c, now_ms);
END $$;

-- Applies a manual operation. A release without an override changes nothing.
CREATE OR REPLACE FUNCTION breaker_operate(p_namespace text, request jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE
  p_circuit text := request->>'circuit';
  action text := request->>'action';
  grace bigint := (request->>'grace_ms')::bigint;
  now_ms bigint;
  stored breaker_circuit;
  c breaker_circuit;
  applied boolean;
BEGIN
  PERFORM breaker_lock(p_namespace, p_circuit);
  now_ms := breaker_now();
  stored := breaker_stored(p_namespace, p_circuit);
  c := breaker_at(stored, now_ms);
  applied := coalesce((request->>'expected_epoch')::bigint = c.epoch, true)
    AND NOT (c.manual IS NOT NULL AND action IN ('trip', 'reset'));
  IF applied AND action = 'release' THEN
    IF c.manual IS NOT NULL THEN
      c := breaker_release(c, now_ms, request->>'reason', request->>'by', grace);
    END IF;
  ELSIF applied THEN
    c := breaker_begin_epoch(
      c, now_ms, CASE WHEN action IN ('trip', 'force_open') THEN 'open' ELSE 'closed' END,
      CASE action WHEN 'trip' THEN (request->>'open_ms')::bigint ELSE 0 END,
      request->>'reason', request->>'by', grace);
    c.manual := CASE action WHEN 'force_open' THEN 'forced_open' WHEN 'force_closed' THEN 'forced_closed' END;
    c.manual_length_ms := CASE WHEN c.manual IS NOT NULL THEN (request->>'keep_ms')::bigint END;
    c.manual_until_ms := now_ms + c.manual_length_ms;
  END IF;
  IF c.epoch > stored.epoch THEN PERFORM breaker_publish(c, now_ms); END IF;
  RETURN jsonb_build_object('applied', applied, 'record', breaker_record(c, now_ms));
END $$;

-- The records after a name, in the order of the names.
CREATE OR REPLACE FUNCTION breaker_list(p_namespace text, after text, most bigint) RETURNS TABLE (record_text text)
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
  SELECT breaker_record(r, now_ms)::text
  FROM (SELECT breaker_now() AS now_ms OFFSET 0) t, breaker_circuit b, breaker_at(b, now_ms) AS r
  WHERE b.namespace = p_namespace AND (after IS NULL OR b.circuit > after) AND r.epoch > 0
  ORDER BY b.circuit
  LIMIT most
$$;

-- The circuits that were published in the last so many milliseconds, for a session without LISTEN.
CREATE OR REPLACE FUNCTION breaker_changes(p_namespace text, within_ms bigint)
RETURNS TABLE (circuit text, epoch bigint, changed_ms bigint, updates text[])
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
  SELECT b.circuit, r.epoch, b.changed_ms, array_remove(ARRAY[
    jsonb_build_object('record', breaker_record(r, now_ms))::text, breaker_slots_taken(r, now_ms)::text], NULL)
  FROM (SELECT breaker_now() AS now_ms OFFSET 0) t, breaker_circuit b, breaker_at(b, now_ms) AS r
  WHERE b.namespace = p_namespace AND b.changed_ms > now_ms - within_ms AND r.epoch > 0
$$;

-- Deletes rows that are invalid. Rows that another session changes are left for the next time.
CREATE OR REPLACE FUNCTION breaker_delete_expired() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE now_ms bigint := breaker_now();
BEGIN
  DELETE FROM breaker_member WHERE ctid = ANY (ARRAY(
    SELECT b.ctid FROM breaker_member b WHERE b.until_ms + b.lifetime_ms < now_ms LIMIT 10000 FOR UPDATE SKIP LOCKED));
  DELETE FROM breaker_lease WHERE ctid = ANY (ARRAY(
    SELECT l.ctid FROM breaker_lease l WHERE l.until_ms + l.length_ms < now_ms LIMIT 10000 FOR UPDATE SKIP LOCKED));
  DELETE FROM breaker_local_open WHERE ctid = ANY (ARRAY(
    SELECT l.ctid FROM breaker_local_open l WHERE l.until_ms < now_ms LIMIT 10000 FOR UPDATE SKIP LOCKED));
  -- A minute later than they become invalid: a session may have read the row as valid before.
  DELETE FROM breaker_circuit WHERE ctid = ANY (ARRAY(
    SELECT b.ctid FROM breaker_circuit b
    WHERE b.manual IS NULL AND b.until_ms + b.grace_ms < now_ms - 60000 LIMIT 10000 FOR UPDATE SKIP LOCKED));
END $$;

-- By default everybody may execute a new function.
DO $$
DECLARE f regprocedure;
BEGIN
  FOR f IN SELECT p.oid FROM pg_proc p
    WHERE p.pronamespace = to_regnamespace(quote_ident(current_schema())) AND p.proname LIKE 'breaker\_%'
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END $$;
COMMIT;
