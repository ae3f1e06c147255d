-- Rows, digest and seal of each user, in the snapshot of the statement that asks.
CREATE OR REPLACE FUNCTION regionwise.digests(p_run text, p_usrs text[])
RETURNS TABLE(usr text, rows bigint, digest bytea, seal bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER {{settings}} AS $digests$
#variable_conflict use_column
DECLARE
  v_salt bytea := regionwise.salt(p_run);
  v_keys {{key_type}}[] := array_remove(p_usrs, {{nobody}})::{{key_type}}[];
BEGIN
  -- Everybody who was asked for adds one line without a digest: no join, and users without rows are there too. Sorted by
  -- the key's own type, because text is compared by a collation.
  RETURN QUERY
    SELECT found.key::text, count(found.digest), sha256(coalesce(string_agg(found.digest, ''::bytea ORDER BY found.digest), ''::bytea)),
      {{seal}}
    FROM (
      SELECT asked.key, NULL::bytea AS digest, NULL::bytea AS version FROM unnest(v_keys) AS asked(key)
      UNION ALL
      {{users}}
    ) AS found
    GROUP BY found.key;
END $digests$;

-- What seals rows that were proven: which versions of them a user has, on this start of this server. Nobody has written a row
-- of a user whose seal is the same, so its bytes are the same. Costs half of a digest, which also reads and hashes them.
-- Good as long as the sessions it was made in: a crash of the server gives the numbers of lost transactions out again.
CREATE OR REPLACE FUNCTION regionwise.seals(p_usrs text[])
RETURNS TABLE(usr text, rows bigint, seal bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER {{seal_settings}} AS $seals$
#variable_conflict use_column
DECLARE
  v_keys {{key_type}}[] := array_remove(p_usrs, {{nobody}})::{{key_type}}[];
BEGIN
  RETURN QUERY
    SELECT found.key::text, count(found.version), {{seal}}
    FROM (
      SELECT asked.key, NULL::bytea AS version FROM unnest(v_keys) AS asked(key)
      UNION ALL
      {{versions}}
    ) AS found
    GROUP BY found.key;
END $seals$;

-- Digests row by row, with primary keys: to find what differs.
CREATE OR REPLACE FUNCTION regionwise.row_digests(p_run text, p_usrs text[])
RETURNS TABLE(usr text, tab int, key text[], digest bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER {{settings}} AS $digests$
#variable_conflict use_column
DECLARE
  v_salt bytea := regionwise.salt(p_run);
  v_keys {{key_type}}[] := array_remove(p_usrs, {{nobody}})::{{key_type}}[];
BEGIN
  RETURN QUERY
    {{rows}};
END $digests$;
