-- What only a superuser can give, and is not there: `lacks text, fix text`, one line for each.
SELECT m.lacks, m.fix FROM (VALUES
  (NOT pg_catalog.pg_has_role('{{move}}', 'pg_read_all_stats', 'USAGE') OR NOT pg_catalog.pg_has_role('{{verify}}', 'pg_read_all_stats', 'USAGE'),
   'a purge cannot see how far standbys are, and will not begin',
   'GRANT pg_read_all_stats TO {{move}}, {{verify}};'),
  (NOT EXISTS (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = 'regionwise')
     OR NOT pg_catalog.has_function_privilege('{{move}}', 'pg_catalog.pg_replication_origin_session_setup(text)', 'EXECUTE'),
   'a purge cannot be told from the application''s deletes in logical decoding',
   'SELECT pg_replication_origin_create(''regionwise''); GRANT EXECUTE ON FUNCTION pg_replication_origin_session_setup(text) TO {{move}};'),
  (NOT pg_catalog.has_parameter_privilege('{{move}}', 'session_replication_role', 'SET')
     OR NOT pg_catalog.has_parameter_privilege('{{move}}', 'log_error_verbosity', 'SET')
     OR NOT pg_catalog.has_parameter_privilege('{{move}}', 'log_min_error_statement', 'SET')
     OR NOT pg_catalog.has_parameter_privilege('{{verify}}', 'log_error_verbosity', 'SET')
     OR NOT pg_catalog.has_parameter_privilege('{{verify}}', 'log_min_error_statement', 'SET'),
   'nobody can move or verify: what they set in their sessions is not allowed to them',
   'GRANT SET ON PARAMETER session_replication_role, log_error_verbosity, log_min_error_statement TO {{move}}; '
     'GRANT SET ON PARAMETER log_error_verbosity, log_min_error_statement TO {{verify}};')
) AS m(missing, lacks, fix) WHERE m.missing;
