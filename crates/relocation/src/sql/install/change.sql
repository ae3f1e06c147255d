-- Every change of a route: compare and set under the home lock, in one call. Nothing of it is held across the network.
CREATE OR REPLACE FUNCTION regionwise.change(
  p_run text, p_usrs text[], p_from text[], p_from_epoch bigint[], p_from_token bigint[],
  p_to text[], p_to_epoch bigint[], p_to_token bigint[], p_digest bytea[], p_seal bytea[], p_wait boolean, p_batch int, p_claim bigint)
RETURNS TABLE(usr text, outcome text, digest bytea, rows bigint, waited_us bigint, held_us bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $change$
#variable_conflict use_column
DECLARE
  v_began timestamptz := clock_timestamp();
  v_first timestamptz;                 -- the first lock
  v_had timestamptz;                   -- all locks
  v_patience interval := current_setting('lock_timeout')::interval;
  v_gate boolean := true;
  v_got text[] := '{}';                -- users whose home lock is had
  v_rows text[];                       -- of these, whose route row is locked too
  v_outcome text[];                    -- beside p_usrs from here on
  v_prove text[]; v_sealed text[];
  v_found bytea[]; v_counted bigint[];
  v_changed bigint; v_written bigint;
  v_usr text;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'a route changes under READ COMMITTED: an older snapshot does not show what writers committed' USING ERRCODE = 'MV003';
  END IF;
  -- Writers wait for this commit. A standby that is gone must not hold them.
  PERFORM set_config('synchronous_commit', 'local', true);

  BEGIN
    IF p_wait THEN LOCK TABLE regionwise.gate IN ROW EXCLUSIVE MODE;
    ELSE LOCK TABLE regionwise.gate IN ROW EXCLUSIVE MODE NOWAIT; END IF;
  EXCEPTION WHEN lock_not_available THEN
    v_gate := false;                   -- a transaction over very many users is open
  END;
  v_first := clock_timestamp();
  IF v_gate THEN
    SELECT coalesce(array_agg(t.usr) FILTER (WHERE t.got), '{}') INTO v_got FROM (
      SELECT o.usr, pg_try_advisory_xact_lock({{class}}, hashtext(o.usr)) AS got
      FROM (SELECT u AS usr FROM unnest(p_usrs) AS u ORDER BY hashtext(u), u COLLATE "C" OFFSET 0) AS o) AS t;
    IF p_wait THEN
      FOR v_usr IN SELECT u FROM unnest(p_usrs) AS u WHERE u <> ALL (v_got) ORDER BY hashtext(u), u COLLATE "C" LOOP
        -- One lock_timeout for all of them together: who is had already, waits too.
        EXIT WHEN v_patience > '0' AND clock_timestamp() - v_first > v_patience;
        BEGIN
          PERFORM pg_advisory_xact_lock({{class}}, hashtext(v_usr));
          v_got := v_got || v_usr;
        EXCEPTION WHEN lock_not_available THEN NULL;
        END;
      END LOOP;
    END IF;
  END IF;
  v_had := clock_timestamp();

  IF p_claim IS NOT NULL THEN
    PERFORM FROM regionwise.batch b WHERE b.run = p_run AND b.batch = p_batch AND b.token = p_claim FOR SHARE;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'the claim on batch % of run % is lost: token % is not its token', p_batch, p_run, p_claim USING ERRCODE = 'MV003';
    END IF;
  END IF;

  IF (p_claim IS NOT NULL OR array_remove(p_seal, NULL) <> '{}')
     AND EXISTS (SELECT FROM regionwise.install i WHERE i.fingerprint <> regionwise.fingerprint()) THEN
    IF p_claim IS NOT NULL THEN
      RAISE EXCEPTION 'the schema is not the one that the fence was installed for' USING ERRCODE = 'MV004', HINT = 'run install again, then plan';
    END IF;
    p_seal := NULL;                    -- DDL changes what rows are without writing them
  END IF;

  -- Nobody who keeps to the rules holds these rows without the home lock; whoever does is not waited for.
  SELECT coalesce(array_agg(l.usr), '{}') INTO v_rows
    FROM (SELECT r.usr FROM regionwise.route r WHERE r.usr = ANY (v_got) ORDER BY r.usr FOR UPDATE SKIP LOCKED) AS l;
  SELECT array_agg(CASE
      WHEN w.usr <> ALL (v_got) OR r.usr IS NOT NULL AND r.usr <> ALL (v_rows) THEN 'busy'
      WHEN w.state IS NULL AND r.usr IS NULL THEN 'changed'
      WHEN r.state = w.state AND r.epoch = w.epoch AND (w.token IS NULL OR r.token = w.token) THEN 'changed'
      WHEN r.state = w.to_state AND r.epoch = w.to_epoch AND (w.to_token IS NULL OR r.token = w.to_token)
        AND (w.digest IS NULL OR r.digest = w.digest) THEN 'done'
      ELSE 'stale' END ORDER BY w.i) INTO v_outcome
    FROM unnest(p_usrs, p_from, p_from_epoch, p_from_token, p_to, p_to_epoch, p_to_token, p_digest) WITH ORDINALITY
      AS w(usr, state, epoch, token, to_state, to_epoch, to_token, digest, i)
    LEFT JOIN regionwise.route r ON r.usr = w.usr;

  -- Statements of their own, so snapshots from after the lock: they show what the last writer committed. A seal that still
  -- holds says that these are the rows that had the digest; without one they are hashed.
  SELECT array_agg(w.usr) FILTER (WHERE w.seal IS NULL), array_agg(w.usr) FILTER (WHERE w.seal IS NOT NULL) INTO v_prove, v_sealed
    FROM unnest(p_usrs, p_digest, p_seal, v_outcome) AS w(usr, digest, seal, outcome)
    WHERE w.outcome = 'changed' AND w.digest IS NOT NULL;
  IF v_prove IS NOT NULL OR v_sealed IS NOT NULL THEN
    SELECT array_agg(d.digest ORDER BY w.i), array_agg(coalesce(d.rows, s.rows) ORDER BY w.i), array_agg(CASE
        WHEN w.outcome = 'changed' AND w.digest IS NOT NULL
          AND CASE WHEN w.seal IS NULL THEN w.digest IS DISTINCT FROM d.digest ELSE w.seal IS DISTINCT FROM s.seal END THEN 'differs'
        ELSE w.outcome END ORDER BY w.i) INTO v_found, v_counted, v_outcome
      FROM unnest(p_usrs, p_digest, p_seal, v_outcome) WITH ORDINALITY AS w(usr, digest, seal, outcome, i)
      LEFT JOIN (SELECT * FROM regionwise.digests(p_run, v_prove) WHERE v_prove IS NOT NULL) AS d ON d.usr = w.usr
      LEFT JOIN (SELECT * FROM regionwise.seals(v_sealed) WHERE v_sealed IS NOT NULL) AS s ON s.usr = w.usr;
  END IF;

  WITH wanted AS (
    SELECT w.* FROM unnest(p_usrs, p_from, p_to, p_to_epoch, p_to_token, p_digest, v_counted, v_outcome)
      AS w(usr, state, to_state, to_epoch, to_token, digest, rows, outcome) WHERE w.outcome = 'changed'
  ), made AS (
    INSERT INTO regionwise.route AS r (usr, state, epoch, run, token, digest, rows)
      SELECT w.usr, w.to_state, w.to_epoch, p_run, w.to_token, w.digest, w.rows FROM wanted w WHERE w.state IS NULL
      RETURNING r.usr
  ), updated AS (
    UPDATE regionwise.route r SET state = w.to_state, epoch = w.to_epoch, rev = r.rev + 1, run = p_run,
      token = coalesce(w.to_token, r.token),
      -- From here on writers note what they touch: the rest can still be compared with the rows that moved.
      watch = r.watch OR (w.to_state = 'active' AND w.digest IS NOT NULL),
      digest = CASE WHEN w.to_state = 'staging' THEN NULL ELSE coalesce(w.digest, r.digest) END,
      rows = CASE WHEN w.to_state = 'staging' THEN NULL WHEN w.digest IS NULL THEN r.rows ELSE w.rows END
      FROM wanted w WHERE w.state IS NOT NULL AND r.usr = w.usr
      RETURNING r.usr
  )
  SELECT (SELECT count(*) FROM wanted), (SELECT count(*) FROM made) + (SELECT count(*) FROM updated) INTO v_changed, v_written;
  IF v_changed <> v_written THEN
    RAISE EXCEPTION '% routes should have changed, not %', v_changed, v_written;
  END IF;
  IF v_changed > 0 THEN
    INSERT INTO regionwise.journal (run, batch, step, facts)
      SELECT p_run, p_batch, 'route', jsonb_object_agg(s.to_state, s.users)
      FROM (SELECT w.to_state, count(*) AS users FROM unnest(p_to, v_outcome) AS w(to_state, outcome)
            WHERE w.outcome = 'changed' GROUP BY w.to_state) AS s;
  END IF;

  RETURN QUERY
    SELECT w.usr, w.outcome, w.digest, w.rows,
      (extract(epoch FROM v_had - v_began) * 1000000)::bigint, (extract(epoch FROM clock_timestamp() - v_first) * 1000000)::bigint
    FROM unnest(p_usrs, v_outcome, v_found, v_counted) AS w(usr, outcome, digest, rows);
END $change$;
