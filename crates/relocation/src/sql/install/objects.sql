-- What both databases keep. Route rows are never deleted, except by `remove`.
CREATE SCHEMA IF NOT EXISTS regionwise;
-- Whoever owns the schema can drop what is in it, and with it the fence: us, or somebody who can do everything anyway.
DO $owner$
DECLARE v_owner name := (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'regionwise');
BEGIN
  IF v_owner = current_user THEN
    RETURN;
  END IF;
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = v_owner) THEN
    RAISE EXCEPTION 'schema regionwise belongs to role %, and role % installs: install as %, or ALTER SCHEMA regionwise OWNER TO % first',
      quote_ident(v_owner), quote_ident(current_user), quote_ident(v_owner), quote_ident(current_user) USING ERRCODE = '42501';
  END IF;
  IF NOT has_schema_privilege('regionwise', 'CREATE') THEN
    RAISE EXCEPTION 'schema regionwise belongs to role %, and role % may not create anything in it: GRANT CREATE ON SCHEMA regionwise TO % first',
      quote_ident(v_owner), quote_ident(current_user), quote_ident(current_user) USING ERRCODE = '42501';
  END IF;
END $owner$;
SELECT pg_catalog.pg_advisory_xact_lock({{class}}, pg_catalog.hashtext('regionwise install'));

CREATE TABLE IF NOT EXISTS regionwise.install (
  version int NOT NULL, cluster text NOT NULL, class int NOT NULL, signup boolean NOT NULL, shape text NOT NULL, fingerprint text,
  installed_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE UNIQUE INDEX IF NOT EXISTS install_once ON regionwise.install ((true));

CREATE TABLE IF NOT EXISTS regionwise.route (
  usr text PRIMARY KEY,
  state text NOT NULL CHECK (state IN ('home', 'staging', 'active', 'moved', 'purged', 'cancelled')),
  epoch bigint NOT NULL DEFAULT 0,        -- grows with every change of home
  rev bigint NOT NULL DEFAULT 0,          -- grows with every change that an older snapshot must not overlook
  watch boolean NOT NULL DEFAULT false,   -- writers note what they touch in `dirty`
  run text, token bigint, digest bytea, rows bigint) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS route_away ON regionwise.route (state) WHERE state NOT IN ('home', 'active');

-- Append only: a row that writers update would queue them behind each other.
CREATE TABLE IF NOT EXISTS regionwise.dirty (usr text NOT NULL, tab int NOT NULL, key text NOT NULL, at_epoch bigint NOT NULL);
CREATE INDEX IF NOT EXISTS dirty_user ON regionwise.dirty (usr);
-- Only ever locked: SHARE by transactions with very many users, ROW EXCLUSIVE by whoever moves or re-parents.
CREATE TABLE IF NOT EXISTS regionwise.gate ();
-- Counts refused writes; a table could not, because a refused write takes back what it did.
CREATE SEQUENCE IF NOT EXISTS regionwise.hits;

CREATE TABLE IF NOT EXISTS regionwise.run (
  run text PRIMARY KEY, plan text NOT NULL, direction text NOT NULL, salt bytea, state text NOT NULL,
  started timestamptz NOT NULL DEFAULT clock_timestamp(), finished timestamptz, note text);
CREATE TABLE IF NOT EXISTS regionwise.batch (
  run text NOT NULL, batch int NOT NULL, state text NOT NULL CHECK (state IN ('open', 'done', 'paused')),
  users int, rows bigint, bytes bigint, holder text, token bigint, expires timestamptz, started timestamptz, finished timestamptz,
  PRIMARY KEY (run, batch));
CREATE TABLE IF NOT EXISTS regionwise.member (
  run text NOT NULL, batch int NOT NULL, usr text NOT NULL, state text, reason text, rounds int, stall_us bigint, rows bigint,
  PRIMARY KEY (run, usr));
CREATE INDEX IF NOT EXISTS member_batch ON regionwise.member (run, batch);
CREATE TABLE IF NOT EXISTS regionwise.journal (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run text, batch int, step text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(), facts jsonb);

DO $class$ BEGIN
  IF EXISTS (SELECT FROM regionwise.install WHERE class <> {{class}}) THEN
    RAISE EXCEPTION 'lock class % cannot replace the class that writers use now', {{class}}
      USING HINT = 'keep the class, or remove the installation first';
  END IF;
END $class$;
