-- Rights. Functions are everybody's by default, so that is taken back first.
GRANT USAGE ON SCHEMA regionwise TO PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA regionwise FROM PUBLIC;
GRANT EXECUTE ON FUNCTION regionwise.is_home(text) TO PUBLIC;
-- A route that somebody makes here is a claim on a user: only who may insert users, as it is now, signs them up.
DO $sign_up$
DECLARE r record;
BEGIN
  FOR r IN
    WITH writers AS (
      SELECT a.grantee FROM pg_class c CROSS JOIN aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
      WHERE c.oid = '{{root}}'::regclass AND a.privilege_type = 'INSERT'
      UNION
      SELECT a.grantee FROM pg_attribute t CROSS JOIN aclexplode(t.attacl) a
      WHERE t.attrelid = '{{root}}'::regclass AND a.privilege_type = 'INSERT'),
    signers AS (
      SELECT DISTINCT a.grantee FROM pg_proc p CROSS JOIN aclexplode(p.proacl) a
      WHERE p.oid = 'regionwise.sign_up(text)'::regprocedure AND a.grantee <> p.proowner)
    SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role,
           w.grantee IS NOT NULL AND pg_get_userbyid(grantee) <> '{{move}}' AS writes
    FROM writers w FULL JOIN signers s USING (grantee)
  LOOP
    IF r.writes THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION regionwise.sign_up(text) TO %s', r.role);
    ELSE
      EXECUTE format('REVOKE EXECUTE ON FUNCTION regionwise.sign_up(text) FROM %s', r.role);
    END IF;
  END LOOP;
END $sign_up$;
-- What the statement trigger calls with the rights of whoever writes.
GRANT EXECUTE ON FUNCTION regionwise.declared(boolean), regionwise.declared_snapshot(text) TO PUBLIC;
GRANT SELECT ({{public}}) ON regionwise.route TO PUBLIC;
-- An application asks how a sign-up gets its route here.
GRANT SELECT (signup) ON regionwise.install TO PUBLIC;

GRANT SELECT ON ALL TABLES IN SCHEMA regionwise TO {{move}}, {{verify}};
GRANT SELECT ON SEQUENCE regionwise.hits TO {{move}}, {{verify}};
GRANT EXECUTE ON FUNCTION regionwise.digests(text, text[]), regionwise.row_digests(text, text[]), regionwise.salt(text), regionwise.fingerprint()
  TO {{move}}, {{verify}};
GRANT EXECUTE ON FUNCTION regionwise.mover_statement(text), regionwise.enter(text, bigint, text[], text), regionwise.lock_homes(text[]),
  regionwise.unwatch(text[]), regionwise.seals(text[]),
  regionwise.change(text, text[], text[], bigint[], bigint[], text[], bigint[], bigint[], bytea[], bytea[], boolean, int, bigint) TO {{move}};
-- Routes change through regionwise.change alone; a run adds those that are missing.
GRANT INSERT ON regionwise.route TO {{move}};
GRANT INSERT, UPDATE, DELETE ON regionwise.run, regionwise.batch, regionwise.member, regionwise.journal, regionwise.dirty TO {{move}};
GRANT INSERT ON regionwise.gate TO {{move}};

GRANT USAGE ON SCHEMA {{schemas}} TO {{move}}, {{verify}};
GRANT SELECT ON {{read}} TO {{move}}, {{verify}};
GRANT INSERT, UPDATE, DELETE ON {{owned}} TO {{move}};

DO $temporary$ BEGIN
  EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO {{move}}', current_database());
END $temporary$;

-- Whether a standby has what a purge removes elsewhere, and which transaction is older than it.
DO $statistics$ BEGIN
  IF NOT pg_has_role('{{move}}', 'pg_read_all_stats', 'USAGE') OR NOT pg_has_role('{{verify}}', 'pg_read_all_stats', 'USAGE') THEN
    GRANT pg_read_all_stats TO {{move}}, {{verify}};
  END IF;
EXCEPTION WHEN insufficient_privilege THEN
  NULL;                                -- the installation ends with what is missing
END $statistics$;

-- The origin that change data capture tells a purge by.
DO $origin$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = 'regionwise') THEN
    PERFORM pg_replication_origin_create('regionwise');
  END IF;
  GRANT EXECUTE ON FUNCTION pg_replication_origin_session_setup(text) TO {{move}};
EXCEPTION WHEN insufficient_privilege OR unique_violation OR object_not_in_prerequisite_state THEN
  NULL;                                -- the installation ends with what is missing
END $origin$;

-- Without the last two the server's log shows values of rows that a unique key of the target excludes, and whom statements name.
DO $parameter$ BEGIN
  IF NOT has_parameter_privilege('{{move}}', 'session_replication_role', 'SET')
    OR NOT has_parameter_privilege('{{move}}', 'log_error_verbosity', 'SET')
    OR NOT has_parameter_privilege('{{move}}', 'log_min_error_statement', 'SET') THEN
    GRANT SET ON PARAMETER session_replication_role, log_error_verbosity, log_min_error_statement TO {{move}};
  END IF;
  IF NOT has_parameter_privilege('{{verify}}', 'log_error_verbosity', 'SET')
    OR NOT has_parameter_privilege('{{verify}}', 'log_min_error_statement', 'SET') THEN
    GRANT SET ON PARAMETER log_error_verbosity, log_min_error_statement TO {{verify}};
  END IF;
EXCEPTION WHEN insufficient_privilege THEN
  NULL;                                -- the installation ends with what is missing
END $parameter$;
