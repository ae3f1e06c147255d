-- What check-replication-lag and the product's own /health/db write to and read from, once per cluster, on its primary.
-- Replace regionwise_lag by the role in the lag DSNs. The standbys get all of it by replication.
CREATE SCHEMA IF NOT EXISTS regionwise;

CREATE TABLE IF NOT EXISTS regionwise.heartbeat (
  cluster text        NOT NULL,
  writer  uuid        NOT NULL,
  seq     bigint      NOT NULL,
  ts      timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (cluster, writer)
) WITH (fillfactor = 50); -- room for updates beside the old row: no index grows

GRANT USAGE ON SCHEMA regionwise TO regionwise_lag;
GRANT SELECT, INSERT, UPDATE, DELETE ON regionwise.heartbeat TO regionwise_lag;
GRANT pg_monitor TO regionwise_lag;
