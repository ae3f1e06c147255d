-- What only a superuser can give.
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
