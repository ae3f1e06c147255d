-- What the fences and the mover share. Everything runs with a pinned search_path; names in quotes come from the closure.
-- What is refused has an SQLSTATE of its own. For applications: MV001, the user is not written here now; MV002, never allowed.
-- For the mover: MV003, somebody else has taken over; MV004, the schema is not the installed one; MV005, the run has no salt here.

-- A hint for jobs that skip users who are not here; never a guard.
CREATE OR REPLACE FUNCTION regionwise.is_home(usr text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT EXISTS (SELECT FROM regionwise.route r WHERE r.usr = $1 AND r.state IN ('home', 'active')) $f$;

CREATE OR REPLACE FUNCTION regionwise.refuse(p_state text, p_epoch bigint, p_why text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM nextval('regionwise.hits');
  RAISE EXCEPTION 'this user is not written here now: %', p_why
    USING ERRCODE = 'MV001', DETAIL = coalesce(p_epoch, -1), HINT = 'read the route of the user again and repeat the transaction where its home is';
END $f$;

CREATE OR REPLACE FUNCTION regionwise.salt(p_run text) RETURNS bytea
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE v_salt bytea := (SELECT r.salt FROM regionwise.run r WHERE r.run = p_run);
BEGIN
  IF v_salt IS NULL THEN RAISE EXCEPTION 'run % has no salt here', p_run USING ERRCODE = 'MV005'; END IF;
  IF pg_client_encoding() <> 'UTF8' THEN RAISE EXCEPTION 'digests need client_encoding UTF8, not %', pg_client_encoding(); END IF;
  RETURN v_salt;
END $f$;

-- The home lock of one user, for the rest of the transaction: shared for writers, exclusive for a change of owner.
-- The setting regionwise.last is the transaction's memory: a number from 1000 on that counts users locked, `=`, and the
-- user checked last. It is set LOCAL, so ROLLBACK TO takes lock and memory back together.
-- p_above: the greatest lock taken since the owner was first looked up. Waiting for a smaller one could be a deadlock.
CREATE OR REPLACE FUNCTION regionwise.hold(p_usr text, p_exclusive boolean, p_above int) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  v_count int := coalesce(nullif(left(current_setting('regionwise.last', true), 4), ''), '1000')::int;
  v_lock int := hashtext(p_usr);
  v_had boolean;
  v_before text; v_after text; v_state text; v_epoch bigint;
BEGIN
  IF NOT p_exclusive AND v_count > 1256 THEN
    RETURN p_above;                                    -- the gate is had
  END IF;
  IF p_exclusive THEN
    LOCK TABLE regionwise.gate IN ROW EXCLUSIVE MODE;
    v_had := pg_try_advisory_xact_lock({{class}}, v_lock);
  ELSIF v_count < 1256 THEN
    v_had := pg_try_advisory_xact_lock_shared({{class}}, v_lock);
  ELSE
    v_had := false;                                    -- one lock for all users from here on: the lock table is everybody's
  END IF;
  IF v_had THEN RETURN greatest(p_above, v_lock); END IF;
  IF v_lock < p_above AND (p_exclusive OR v_count < 1256) THEN
    RAISE EXCEPTION 'the owner of a row changed while its transaction waited' USING ERRCODE = '40001';
  END IF;
  -- Whoever has to wait has a statement snapshot from before the wait. If the home changed meanwhile, rows that came with
  -- that change would be missed in silence: say "again". A fence that was taken back changed nothing.
  SELECT r.state || ' ' || r.epoch INTO v_before FROM regionwise.route r WHERE r.usr = p_usr;
  IF p_exclusive THEN PERFORM pg_advisory_xact_lock({{class}}, v_lock);
  ELSIF v_count < 1256 THEN PERFORM pg_advisory_xact_lock_shared({{class}}, v_lock);
  ELSE LOCK TABLE regionwise.gate IN SHARE MODE; END IF;
  SELECT r.state || ' ' || r.epoch, r.state, r.epoch INTO v_after, v_state, v_epoch FROM regionwise.route r WHERE r.usr = p_usr;
  IF v_before IS DISTINCT FROM v_after THEN
    PERFORM regionwise.refuse(v_state, v_epoch, 'its home changed while this statement waited');
  END IF;
  RETURN greatest(p_above, v_lock);
END $f$;

-- The statement trigger: one for everything, without WHEN, which Postgres would parse anew for every statement. For cost
-- too it has neither the rights of its owner nor a path of its own, so every name in it says where it is.
-- It is STABLE and reads with the snapshot of the statement itself; what it calls is not, and sees what is new.
CREATE OR REPLACE FUNCTION regionwise.statement() RETURNS trigger LANGUAGE plpgsql STABLE AS $f$
DECLARE v_declared text; v_now text;
BEGIN
  IF current_user OPERATOR(pg_catalog.=) '{{move}}'::pg_catalog.name THEN
    PERFORM regionwise.mover_statement(TG_OP);
    RETURN NULL;
  END IF;
  -- The user and epoch that a session has declared are checked once per transaction, under the home lock, because a
  -- statement that finds no row fires no row trigger.
  IF pg_catalog.current_setting('regionwise.uid', true) OPERATOR(pg_catalog.<>) '' THEN
    v_declared := pg_catalog.concat(pg_catalog.current_setting('regionwise.uid', true), ':', pg_catalog.current_setting('regionwise.epoch', true));
    IF pg_catalog.current_setting('regionwise.seen', true) OPERATOR(pg_catalog.=) v_declared THEN
      RETURN NULL;
    END IF;
    v_now := regionwise.declared(TG_NARGS OPERATOR(pg_catalog.>) 0 AND TG_OP OPERATOR(pg_catalog.=) 'INSERT');
    IF v_now IS NOT NULL THEN
      PERFORM regionwise.declared_snapshot(v_now);
      PERFORM pg_catalog.set_config('regionwise.seen', v_declared, true);
    END IF;
  END IF;
  RETURN NULL;
END $f$;

-- State and epoch of the declared user under the home lock; NULL for a sign-up, whose row makes the route.
CREATE OR REPLACE FUNCTION regionwise.declared(p_sign_up boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  v_usr text := current_setting('regionwise.uid', true);
  v_epoch text := current_setting('regionwise.epoch', true);
  v_last text := coalesce(nullif(left(current_setting('regionwise.last', true), 4), ''), '1000');
  r regionwise.route;
BEGIN
  PERFORM pg_advisory_xact_lock_shared({{class}}, hashtext(v_usr));
  IF current_setting('transaction_isolation') = 'read committed' THEN
    SELECT * INTO r FROM regionwise.route WHERE usr = v_usr;
  ELSE
    SELECT * INTO r FROM regionwise.route WHERE usr = v_usr FOR SHARE;
  END IF;
  IF NOT FOUND AND p_sign_up THEN
    RETURN NULL;
  END IF;
  IF NOT FOUND OR r.state NOT IN ('home', 'active') OR r.epoch::text IS DISTINCT FROM v_epoch THEN
    PERFORM regionwise.refuse(r.state, r.epoch, format('state %s, epoch %s, declared epoch %s', coalesce(r.state, 'none'), coalesce(r.epoch, -1), v_epoch));
  END IF;
  IF NOT r.watch THEN
    PERFORM set_config('regionwise.last', v_last || '=' || v_usr, true);
  END IF;
  RETURN r.state || ':' || r.epoch;
END $f$;

-- The statement's snapshot is older than the wait for the home lock. If it shows another route than the one just checked,
-- the statement would miss rows that were committed meanwhile. STABLE: called from a STABLE trigger, it reads as that does.
CREATE OR REPLACE FUNCTION regionwise.declared_snapshot(p_now text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE r regionwise.route;
BEGIN
  SELECT * INTO r FROM regionwise.route WHERE usr = current_setting('regionwise.uid', true);
  IF p_now IS DISTINCT FROM r.state || ':' || r.epoch THEN
    PERFORM regionwise.refuse(r.state, r.epoch, 'its home changed while this statement waited');
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION regionwise.no_truncate() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
  RAISE EXCEPTION 'TRUNCATE of % is refused: it would remove rows of users whose home is elsewhere', TG_TABLE_NAME USING ERRCODE = 'MV002';
END $f$;

-- The mover's statements skip the row fence and need this instead.
CREATE OR REPLACE FUNCTION regionwise.mover_statement(p_op text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE v_entered text := coalesce(current_setting('regionwise.entered', true), '');
BEGIN
  IF v_entered = '' THEN
    RAISE EXCEPTION 'the mover has not entered its users in this transaction' USING ERRCODE = 'MV003';
  END IF;
  IF p_op <> 'DELETE' AND v_entered LIKE 'moved %' THEN
    RAISE EXCEPTION 'the mover only deletes rows of users that have moved away' USING ERRCODE = 'MV003';
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION regionwise.enter(p_run text, p_token bigint, p_usrs text[], p_state text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE v_good bigint; v_wanted bigint;
BEGIN
  IF p_state NOT IN ('staging', 'moved') OR p_state IS NULL THEN
    RAISE EXCEPTION 'the mover enters users that are staging or moved, not %', p_state USING ERRCODE = 'MV003';
  END IF;
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'the mover needs READ COMMITTED: an older snapshot does not show who took over' USING ERRCODE = 'MV003';
  END IF;
  -- In the order of the locks. COMMIT fires no trigger: only these locks make an activation wait for it.
  PERFORM pg_advisory_xact_lock_shared({{class}}, hashtext(o.usr))
    FROM (SELECT u AS usr FROM unnest(p_usrs) AS u ORDER BY hashtext(u), u COLLATE "C" OFFSET 0) AS o;
  SELECT count(*) FILTER (WHERE r.state = p_state AND r.token = p_token AND r.run = p_run), count(*) INTO v_good, v_wanted
    FROM unnest(p_usrs) AS u LEFT JOIN regionwise.route r ON r.usr = u;
  IF v_good <> v_wanted THEN
    RAISE EXCEPTION 'token % of run % does not hold % of % users in state %', p_token, p_run, v_wanted - v_good, v_wanted, p_state
      USING ERRCODE = 'MV003';
  END IF;
  PERFORM set_config('regionwise.entered', p_state || ' ' || p_token || ' ' || p_run, true);
END $f$;

-- The home locks of a hot user for the rest of a transaction that ships its last changes and then calls change().
CREATE OR REPLACE FUNCTION regionwise.lock_homes(p_usrs text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  LOCK TABLE regionwise.gate IN ROW EXCLUSIVE MODE;
  PERFORM pg_advisory_xact_lock({{class}}, hashtext(o.usr))
    FROM (SELECT u AS usr FROM unnest(p_usrs) AS u ORDER BY hashtext(u), u COLLATE "C" OFFSET 0) AS o;
END $f$;

-- After the purge nothing is left to compare with: writers of these users note nothing any more. Whoever has just read
-- that they should leaves a note behind, which says nothing but a key.
CREATE OR REPLACE FUNCTION regionwise.unwatch(p_usrs text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE v_done text[];
BEGIN
  WITH free AS (
    SELECT r.usr FROM regionwise.route r WHERE r.usr = ANY (p_usrs) AND r.state IN ('home', 'active') AND r.watch
    ORDER BY r.usr FOR UPDATE SKIP LOCKED
  ), done AS (
    UPDATE regionwise.route r SET watch = false FROM free WHERE r.usr = free.usr RETURNING r.usr
  ) SELECT coalesce(array_agg(done.usr), '{}') INTO v_done FROM done;
  DELETE FROM regionwise.dirty d WHERE d.usr = ANY (v_done);
  RETURN cardinality(v_done);
END $f$;

-- For a sign-up at a cluster that does not make routes by itself: before the user's row, in the same transaction.
CREATE OR REPLACE FUNCTION regionwise.sign_up(usr text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
BEGIN
  PERFORM pg_advisory_xact_lock_shared({{class}}, hashtext($1));
  INSERT INTO regionwise.route (usr, state) VALUES ($1, 'active') ON CONFLICT DO NOTHING;
  RETURN FOUND;
END $f$;
