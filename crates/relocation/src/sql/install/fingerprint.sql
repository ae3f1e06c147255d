-- What the fence, the digests and the plan were made for. DDL that came later would leave columns or partitions behind in
-- silence, so no user is released while it differs from what install saw. Asked for under home locks: plpgsql keeps its
-- plans, and planning took longer than the answer.
CREATE OR REPLACE FUNCTION regionwise.fingerprint() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off SET plan_cache_mode = force_generic_plan AS $f$
DECLARE
  v_tables oid[];                      -- and their partitions
  v_types oid[];                       -- of columns, and all that they are made of
BEGIN
  SELECT array_agg(DISTINCT r.relid) INTO v_tables
    FROM unnest(ARRAY[{{tables}}]::regclass[]) AS t(name)
    CROSS JOIN LATERAL (SELECT t.name::oid UNION ALL SELECT p.relid FROM pg_partition_tree(t.name) p) AS r(relid);
  WITH RECURSIVE type(oid) AS (
    SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = ANY (v_tables) AND a.attnum > 0 AND NOT a.attisdropped
    UNION SELECT part.oid FROM type JOIN pg_type y ON y.oid = type.oid CROSS JOIN LATERAL (
      SELECT y.typelem WHERE y.typelem <> 0
      UNION ALL SELECT y.typbasetype WHERE y.typbasetype <> 0
      UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = y.oid OR r.rngmultitypid = y.oid
      UNION ALL SELECT a.atttypid FROM pg_attribute a
        WHERE y.typtype = 'c' AND a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS part(oid)
  ) SELECT array_agg(type.oid) INTO v_types FROM type;
  RETURN (SELECT md5(string_agg(f.fact, ';' ORDER BY f.fact COLLATE "C")) FROM (
    -- With the place: a column that was dropped and added again, or took another's name, has other values in the same rows.
    SELECT format('column %s %s %s %s %s %s %s %s', a.attrelid::oid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull,
        a.attgenerated, CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END) AS fact
      FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = ANY (v_tables) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT format('trigger %s %s %s', g.tgrelid::oid, g.tgname, g.tgenabled)
      FROM pg_trigger g WHERE g.tgrelid = ANY (v_tables) AND NOT g.tgisinternal AND g.tgname LIKE '~regionwise%'
    UNION ALL SELECT format('label %s %s %s', e.enumtypid, e.oid, e.enumlabel)
      FROM pg_enum e WHERE e.enumtypid = ANY (v_types)
    UNION ALL SELECT format('attribute %s %s %s %s %s', k.oid, a.attnum, a.attname, a.atttypid, a.atttypmod)
      FROM pg_type k JOIN pg_attribute a ON a.attrelid = k.typrelid
      WHERE k.oid = ANY (v_types) AND k.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT format('late key %s', k.oid)
      FROM pg_constraint k WHERE k.conrelid = ANY (v_tables) AND k.contype IN ('p', 'u', 'x') AND k.condeferrable
    UNION ALL SELECT format('key %s %s', k.oid, k.convalidated)
      FROM pg_constraint k WHERE k.contype = 'f' AND (k.conrelid = ANY (v_tables) OR k.confrelid = ANY (v_tables))
  ) AS f);
END $f$;
