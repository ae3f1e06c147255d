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
