-- What the fence, the digests and the plan were made for. DDL that came later would leave columns or partitions behind in
-- silence, so no user is released while it differs from what install saw.
CREATE OR REPLACE FUNCTION regionwise.fingerprint() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $f$
  WITH tables AS (
    SELECT p.relid FROM unnest(ARRAY[{{tables}}]::regclass[]) AS t(name) CROSS JOIN LATERAL pg_partition_tree(t.name) p
    UNION SELECT t.name FROM unnest(ARRAY[{{tables}}]::regclass[]) AS t(name)
  )
  SELECT md5(string_agg(f.fact, ';' ORDER BY f.fact COLLATE "C")) FROM (
    -- With the place: a column that was dropped and added again, or took another's name, has other values in the same rows.
    SELECT format('column %s %s %s %s %s %s %s %s', a.attrelid::oid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull,
        a.attgenerated, CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END) AS fact
      FROM pg_attribute a JOIN tables t ON a.attrelid = t.relid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT format('trigger %s %s %s', g.tgrelid::oid, g.tgname, g.tgenabled)
      FROM pg_trigger g JOIN tables t ON g.tgrelid = t.relid WHERE NOT g.tgisinternal AND g.tgname LIKE '~regionwise%'
    UNION ALL SELECT format('label %s %s %s', e.enumtypid, e.oid, e.enumlabel)
      FROM pg_enum e WHERE e.enumtypid IN (SELECT coalesce(nullif(y.typelem, 0), nullif(y.typbasetype, 0), y.oid)
        FROM pg_attribute a JOIN tables t ON a.attrelid = t.relid JOIN pg_type y ON y.oid = a.atttypid WHERE a.attnum > 0)
    UNION ALL SELECT format('late key %s', k.oid)
      FROM pg_constraint k WHERE k.contype IN ('p', 'u', 'x') AND k.condeferrable AND k.conrelid IN (SELECT relid FROM tables)
    UNION ALL SELECT format('key %s %s', k.oid, k.convalidated)
      FROM pg_constraint k WHERE k.contype = 'f' AND (k.conrelid IN (SELECT relid FROM tables) OR k.confrelid IN (SELECT relid FROM tables))
  ) AS f $f$;
