DO $remove$
DECLARE t record; v_away bigint;
BEGIN
  SELECT count(*) INTO v_away FROM regionwise.route WHERE state <> 'home' AND NOT (state = 'active' AND run IS NULL);
  IF v_away > 0 THEN
    RAISE EXCEPTION '% users have a route that is not home', v_away USING HINT = 'without the fence, both clusters would accept their writes';
  END IF;
  FOR t IN SELECT g.tgname, g.tgrelid::regclass AS relation FROM pg_catalog.pg_trigger g
           WHERE g.tgname LIKE '{{trigger}}%' AND g.tgparentid = 0 AND NOT g.tgisinternal LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, t.relation);
  END LOOP;
  -- The schema itself may hold what is not ours.
  FOR t IN SELECT p.oid::regprocedure AS function FROM pg_catalog.pg_proc p
           WHERE p.pronamespace = 'regionwise'::regnamespace
             AND (p.proname ~ '^(fence|key)_[0-9]+$' OR p.proname IN ('is_home', 'refuse', 'salt', 'hold', 'statement', 'declared', 'declared_snapshot',
               'no_truncate', 'mover_statement', 'enter', 'lock_homes', 'unwatch', 'fingerprint', 'sign_up', 'digests', 'seals', 'row_digests', 'change')) LOOP
    EXECUTE format('DROP FUNCTION %s', t.function);
  END LOOP;
  DROP TABLE regionwise.install, regionwise.route, regionwise.dirty, regionwise.gate, regionwise.run, regionwise.batch,
    regionwise.member, regionwise.journal;
  DROP SEQUENCE regionwise.hits;
END $remove$;
