#!/bin/sh
# shellcheck disable=SC2154  # the file of settings assigns them
# Written by provision-region. One Postgres node, as /etc/regionwise/postgres/node says it. What ends in _made or _so is a
# question that changes nothing. Never makes a cluster in a place where anything is, and never restarts one.
#
#   postgres VERB [DIRECTORY OF STAGED FILES, OR NAMES FOR sync, OR first FOR make_cluster, OR A NUMBER FOR votes]
set -u
umask 022
export LC_ALL=C
cd / || exit 1
settings=/etc/regionwise/postgres
# shellcheck source=/dev/null
. "$settings/node"
top=/var/lib/postgresql/regionwise
loaded=/run/regionwise/postgres-loaded
staged=${2:-}
sync=${2:-}
first=${2:-}
count=${2:-}

die() {
  echo "$1"
  exit 1
}

# Of our cluster, else of data that a kept volume has brought, else the newest that is installed.
version=
for there in /etc/postgresql/*/regionwise/conf.d; do
  [ -d "$there" ] && version=${there#/etc/postgresql/} && version=${version%%/*}
done
for there in "$top"/[0-9][0-9]/PG_VERSION; do
  [ -n "$version" ] || [ ! -s "$there" ] || version=$(cat "$there")
done
# shellcheck disable=SC2012  # they are numbers
[ -n "$version" ] || version=$(ls /usr/lib/postgresql | sort -n | tail -n 1)
programs=/usr/lib/postgresql/$version/bin
configuration=/etc/postgresql/$version/regionwise
data=$top/$version
unit=postgresql@$version-regionwise.service

as_postgres() {
  runuser -u postgres -- "$@"
}

# sql DATABASE, with the statements on stdin. A standby that is gone must not hold up what brings the next one.
sql() {
  PGOPTIONS='-c synchronous_commit=local -c lock_timeout=30s' as_postgres psql -X -q -A -t -v ON_ERROR_STOP=1 -h /var/run/postgresql -p 5432 -d "$1"
}

# The one value of a query about the server.
value() {
  echo "$1" | sql postgres
}

# The role and the slot of a standby.
replica() {
  echo "replica_$1" | tr - _
}

# within SECONDS COMMAND..
within() {
  left=$1
  shift
  until "$@"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || return 1
    sleep 1
  done
}

## The volume

volume_made() {
  mountpoint -q "$top" && [ "$(findmnt -n -o SOURCE "$top")" = "$(readlink -f "$volume")" ]
}

# No signature of anything, and nothing where one would be.
blank() {
  [ -z "$(wipefs -n "$volume")" ] && cmp -s -n 1048576 "$volume" /dev/zero
}

make_volume() {
  within 30 test -b "$volume" || die "volume $volume is not attached to this server"
  mountpoint -q "$top" || [ ! -d "$top" ] || [ -z "$(ls -A "$top")" ] \
    || die "$top has files on the server's own disk, and the volume would hide them: move them away"
  if blank; then
    mkfs.ext4 -q -m 1 "$volume" || die "cannot format $volume"
  else
    kind=$(blkid -p -s TYPE -o value "$volume")
    [ "$kind" = ext4 ] \
      || die "volume $volume is not blank and not ext4 (${kind:-nothing known}): nothing here formats it; give another one, or wipe it yourself"
  fi
  mkdir -p "$top" && systemctl daemon-reload && systemctl --quiet enable --now "$mount"
}

# A volume that was made larger gives its filesystem nothing by itself.
volume_filled() {
  blocks=$(dumpe2fs -h "$volume" 2> /dev/null | sed -n 's/^Block count: *//p')
  size=$(dumpe2fs -h "$volume" 2> /dev/null | sed -n 's/^Block size: *//p')
  whole=$(blockdev --getsize64 "$volume") || return 1
  [ -n "$blocks" ] && [ -n "$size" ] && [ $(((blocks + 1) * size)) -gt "$whole" ]
}

fill_volume() {
  resize2fs "$volume" || die "cannot give all of $volume to its filesystem"
}

## What follows from the server's size

sizes() {
  memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
  mkdir -p "$top"
  disk=$(df -P -m "$top" | awk 'NR == 2 { print $2 }')
  [ -n "$memory" ] && [ -n "$disk" ] || return 1
  echo "# A quarter of the memory, and of the disk: a standby that is gone must not fill it."
  echo "shared_buffers = '$((memory / 4)) MB'"
  echo "effective_cache_size = '$((memory * 3 / 4)) MB'"
  echo "max_slot_wal_keep_size = '$((disk / 4)) MB'"
}

sizes_so() {
  sizes | cmp -s - "$settings/sizes.conf"
}

set_sizes() {
  sizes > "$settings/sizes.conf.new" && mv "$settings/sizes.conf.new" "$settings/sizes.conf"
}

## The cluster

state() {
  as_postgres "$programs/pg_controldata" -D "$data" | sed -n "s/^$1: *//p"
}

is_standby() {
  [ -e "$data/standby.signal" ]
}

cluster_made() {
  [ -s "$data/PG_VERSION" ] && [ -L "$configuration/conf.d/00-regionwise.conf" ] || return 1
  case $part in
    primary) ! is_standby ;;
    standby) is_standby ;;
  esac
}

make_cluster() {
  [ -z "$volume" ] || volume_made || die "volume $volume is not mounted at $top"
  [ -x "$programs/postgres" ] || die "the data in $data are of Postgres $version, which this system does not have: install postgresql-$version, or upgrade them by hand"
  for other in "$top"/[0-9][0-9]/PG_VERSION; do
    [ ! -s "$other" ] || [ "$other" = "$data/PG_VERSION" ] \
      || die "${other%/PG_VERSION} has data, too: a new cluster beside them would hide them; move away what is not wanted"
  done
  if [ -s "$data/PG_VERSION" ]; then
    case $part in
      primary) ! is_standby || die "$data is a standby, and $node shall be the primary of $cluster: fence the old primary, then promote it" ;;
      standby) is_standby || die "$data was promoted or never was a standby, and may have writes of its own: look at them, then move it away, and it is seeded again" ;;
    esac
  else
    [ ! -e "$data" ] || [ -z "$(ls -A "$data")" ] || die "$data is not empty, and no Postgres"
    ! pg_lsclusters -h | awk '$2 != "regionwise" && $3 == 5432 { found = 1 } END { exit !found }' \
      || die 'another Postgres has port 5432 on this server: move it, or choose another server'
    # The rename comes last: what a run that was killed has left is not taken for a cluster.
    "seed_$part"
    sync && rmdir "$data" 2> /dev/null
    mv -T "$data.new" "$data" || exit 1
  fi
  adopt
}

empty() {
  rm -rf "$data.new" && install -d -m 700 -o postgres -g postgres "$data.new" || exit 1
}

# C.UTF-8 compares code points, so no library's version can change the order of an index, on no node.
seed_primary() {
  [ "$first" = first ] \
    || die "a standby of $cluster has rows, or could not be asked, and a new primary would begin without them: promote that standby and say so in regions.toml, or move its data away"
  empty
  as_postgres "$programs/initdb" -D "$data.new" --data-checksums --encoding=UTF8 --locale=C.UTF-8 \
    --auth-local=peer --auth-host=reject --no-instructions || die 'initdb failed'
}

# A copy may take hours, and goes on without whoever began it: a job of a workflow may end, a laptop may sleep. The next run
# waits for it, or finds it whole.
seed_standby() {
  [ -s "$settings/primary.crt" ] || die "nobody has said the certificate of $primary yet: set it up first"
  end_of_copy
  if ! copied; then
    empty
    systemctl reset-failed "$copying" 2> /dev/null
    systemd-run --quiet --unit="$copying" "$0" copy || die "cannot start $copying"
    end_of_copy
  fi
  copied || die "cannot copy $primary: is it set up with $node as its standby, and does the mesh reach it? $(journalctl -q -n 2 -o cat -u "$copying" | tr '\n' ' ')"
  rm "$data.new/$mark"
  # What somebody altered on the primary is not of this node.
  : > "$data.new/postgresql.auto.conf" && as_postgres touch "$data.new/standby.signal" || exit 1
}

copying=regionwise-copy.service
mark=regionwise-copied

# Whoever waits for a run that is gone would keep every other one out.
end_of_copy() {
  while systemctl -q is-active "$copying"; do
    { echo at-work >&7; } 2> /dev/null
    sleep 1
  done
}

# Of this primary, and not so old that its slot may have gone meanwhile.
copied() {
  [ "$(cat "$data.new/$mark" 2> /dev/null)" = "$primary" ] && [ -n "$(find "$data.new/$mark" -mmin -1440)" ]
}

copy() {
  as_postgres "$programs/pg_basebackup" -d "$conninfo" --no-password -D "$data.new" -X stream -S "$(replica "$node")" -c fast \
    && sync && echo "$primary" > "$data.new/$mark"
}

# Debian's tools know the cluster from here on. They want its configuration, which then is ours.
adopt() {
  # A kept volume may come from a system on which postgres had another number.
  [ "$(stat -c %U "$data/PG_VERSION")" = postgres ] || chown -R postgres:postgres "$data" || exit 1
  rm -rf "$configuration"
  for file in postgresql.conf pg_hba.conf pg_ident.conf; do
    rm -f "$data/$file" && install -m 600 -o postgres -g postgres /dev/null "$data/$file" || exit 1
  done
  pg_createcluster --port 5432 --datadir "$data" --start-conf auto "$version" regionwise || die 'pg_createcluster failed'
  # The last value counts, and ours come before those of whoever adds a file.
  echo "include_dir = 'conf.d'" >> "$configuration/postgresql.conf"
  mkdir -p "$configuration/conf.d" && ln -sf "$settings/regionwise.conf" "$configuration/conf.d/00-regionwise.conf"
}

answers() {
  as_postgres "$programs/pg_isready" -q -h /var/run/postgresql -p 5432
}

running_so() {
  systemctl -q is-active "$unit" && systemctl -q is-enabled postgresql.service && answers
}

run() {
  systemctl daemon-reload && systemctl --quiet enable postgresql.service && systemctl start "$unit" || exit 1
  within 60 answers || die "Postgres does not answer: $(tail -n 3 "/var/log/postgresql/postgresql-$version-regionwise.log")"
}

# What Postgres reads at a start and at a reload. Only what was read counts, not what lies there: a run may end in between.
files() {
  cat "$settings/regionwise.conf" "$settings/pg_hba.conf" "$settings/pg_ident.conf" "$settings/peers.crt" "$settings/primary.crt" \
    "$settings/server.crt" "$settings/sizes.conf" "$settings/sync.conf" 2> /dev/null | sha256sum
}

note_loaded() {
  mkdir -p "${loaded%/*}" && files > "$loaded"
}

configured_so() {
  files | cmp -s - "$loaded" || return 1
  wrong=$(value "SELECT string_agg(concat_ws(' ', sourcefile, sourceline, name, error), '; ') FROM pg_file_settings
    WHERE error IS NOT NULL AND error <> 'setting could not be applied'") || return 1
  wrong=$wrong$(value "SELECT string_agg(concat('pg_hba.conf ', line_number, ' ', error), '; ') FROM pg_hba_file_rules WHERE error IS NOT NULL") || return 1
  [ -z "$wrong" ] || die "$wrong"
}

configure() {
  note_loaded && value 'SELECT pg_reload_conf()' && return
  rm -f "$loaded"
  return 1
}

## What a primary has

# sql_words WORD..: a list for IN, never an empty one. The words have no quotes.
sql_words() {
  printf "''"
  for word in "$@"; do printf ", '%s'" "$word"; done
}

replicas_so() {
  # shellcheck disable=SC2046,SC2086  # lists of words
  wanted=$(sql_words $(for one in $standbys; do replica "$one"; done))
  # shellcheck disable=SC2086
  set -- $standbys
  [ "$(value "SELECT count(*) FROM pg_roles JOIN pg_replication_slots ON slot_name = rolname
    WHERE rolname IN ($wanted) AND slot_type = 'physical' AND rolcanlogin AND rolreplication AND NOT rolsuper")" = $# ]
}

make_replicas() {
  for one in $standbys; do
    name=$(replica "$one")
    echo "SELECT 'CREATE ROLE $name' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$name') \\gexec"
    echo "ALTER ROLE $name LOGIN REPLICATION NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD NULL;"
    echo "SELECT pg_create_physical_replication_slot('$name', true)
      WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '$name');"
  done | sql postgres
}

# verifier FILE [WHAT IS STORED]: what Postgres stores for the password in FILE, with the salt that is stored already. So
# that the password itself is in no statement, no log and no command line.
verifier() {
  perl -MDigest::SHA=hmac_sha256,sha256 -MMIME::Base64 -e '
    open my $file, "<", $ARGV[0] or die "cannot read a staged password: $!\n";
    chomp(my $password = <$file> // "");
    $password =~ /^[\x21-\x7e][\x20-\x7e]{7,}$/ or die "a password must have eight characters or more, and printable ASCII only\n";
    my ($rounds, $salt) = (4096, "");
    if (($ARGV[1] // "") =~ /^SCRAM-SHA-256\$(\d+):([^\$]+)\$/) { ($rounds, $salt) = ($1, decode_base64($2)) }
    else { open my $random, "<", "/dev/urandom" or die; read($random, $salt, 16) == 16 or die }
    my $salted = my $u = hmac_sha256($salt . pack("N", 1), $password);
    for (2 .. $rounds) { $u = hmac_sha256($u, $password); $salted ^= $u }
    my @keys = (sha256(hmac_sha256("Client Key", $salted)), hmac_sha256("Server Key", $salted));
    my ($said, @coded) = map { encode_base64($_, "") } $salt, @keys;
    print "SCRAM-SHA-256\$$rounds:$said\$$coded[0]:$coded[1]";
  ' "$@"
}

# The attributes that no account has.
plain='NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS'

read_accounts() {
  known=$(value "SELECT rolname || ' ' || rolpassword FROM pg_authid WHERE rolcanlogin AND rolpassword LIKE 'SCRAM-SHA-256%'
    AND NOT (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)")
}

# account_so NAME, after read_accounts.
account_so() {
  stored=$(printf '%s\n' "$known" | sed -n "s|^$1 ||p")
  [ -n "$stored" ] || return 1
  salt=${stored#SCRAM-SHA-256?}
  [ "$(verifier "$staged/password-$1" "SCRAM-SHA-256\$${salt%%\$*}\$")" = "$stored" ]
}

accounts_so() {
  read_accounts || return 1
  for one in $accounts; do
    account_so "${one#*:}" || return 1
  done
  [ "$(value "SELECT concat(pg_get_userbyid(datdba), ' ', has_database_privilege('public', oid, 'TEMP')) FROM pg_database
    WHERE datname = '$database'")" = "${owner:-postgres} f" ] || return 1
  # The right to it is the last thing that heartbeat.sql gives.
  [ -z "$monitor" ] || [ "$(echo "SELECT has_table_privilege('$monitor', to_regclass('regionwise.heartbeat'), 'DELETE')
    AND pg_has_role('$monitor', 'pg_monitor', 'USAGE')" | sql "$database")" = t ]
}

account_statements() {
  for one in $accounts; do
    name=${one#*:}
    echo "SELECT 'CREATE ROLE \"$name\"' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$name') \\gexec"
    account_so "$name" && continue
    password=$(verifier "$staged/password-$name") || return 1
    echo "ALTER ROLE \"$name\" LOGIN $plain PASSWORD '$password';"
  done
  echo "SELECT 'CREATE DATABASE \"$database\"' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '$database') \\gexec"
  echo "ALTER DATABASE \"$database\" OWNER TO \"${owner:-postgres}\";"
  echo "REVOKE ALL ON DATABASE \"$database\" FROM PUBLIC;"
  for one in $accounts; do echo "GRANT CONNECT ON DATABASE \"$database\" TO \"${one#*:}\";"; done
}

make_accounts() {
  read_accounts && statements=$(account_statements) || exit 1
  printf '%s\n' "$statements" | sql postgres || exit 1
  [ -z "$monitor" ] || sql "$database" < "$settings/heartbeat.sql"
}

# The group roles may not be there yet, and nobody can be asked for their rights then.
migration_so() {
  lacks=$(sql "$database" < "$settings/migration-lacks.sql" 2> /dev/null) && [ -z "$lacks" ]
}

prepare_migration() {
  sql "$database" < "$settings/migration.sql"
}

streaming() {
  # shellcheck disable=SC2086  # a list of words
  value "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' AND application_name IN ($(sql_words $standbys))"
}

# Names that do not stream would stop every commit.
all_stream() {
  missing=
  stream=" $(streaming | tr '\n' ' ') "
  for one in $standbys; do
    case $stream in
      *" $one "*) ;;
      *) missing="$missing $one" ;;
    esac
  done
  [ -z "$missing" ]
}

# The standbys that commits wait for.
waited_for() {
  [ ! -e "$settings/sync.conf" ] || grep -o '"[a-z0-9-]*"' "$settings/sync.conf" | tr -d '"'
}

is_known() {
  case " $known " in
    *" $1 "*) ;;
    *) return 1 ;;
  esac
}

# Who is not of the cluster any more is let in no more: commits would wait for ever. One that is only absent keeps its vote.
departed_so() {
  for one in $(waited_for); do
    is_known "$one" || return 1
  done
}

forget_departed() {
  kept='' number=0
  for one in $(waited_for); do
    is_known "$one" || continue
    kept="$kept${kept:+, }\"$one\"" number=$((number + 1))
  done
  count=$(sed -n 's/.*ANY \([0-9]*\) .*/\1/p' "$settings/sync.conf")
  [ "$count" -le "$number" ] || count=$number
  [ "$number" = 0 ] || kept="ANY $count ($kept)"
  write_sync "$kept"
}

write_sync() {
  echo "synchronous_standby_names = '$1'" > "$settings/sync.conf.new" && mv "$settings/sync.conf.new" "$settings/sync.conf"
}

sync_so() {
  [ "$(value "SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names'")" = "$sync" ]
}

set_sync() {
  within 20 all_stream || die "not streaming yet:$missing; with their names set, every commit would wait for them"
  write_sync "$sync" || exit 1
  configure > /dev/null && within 10 sync_so
}

# Fewer than wanted, for example from the hour on in which a new standby takes the place of an old one. Asked last in a run.
votes() {
  names=$(value "SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names'") || exit 1
  number=$(echo "$names" | sed -n 's/^ANY \([0-9]*\) .*/\1/p')
  if [ -n "$names" ] && [ -z "$number" ]; then
    echo "whom commits wait for is set elsewhere (synchronous_standby_names is $names), and $count standbys are wanted"
    return
  fi
  [ "${number:-0}" -ge "$count" ] \
    || echo "commits wait for ${number:-0} standbys, and $count are wanted: set this server up again when all of $known stream"
}

## What a standby has

streams_so() {
  [ "$(value "SELECT concat(status, ' ', slot_name) FROM pg_stat_wal_receiver")" = "streaming $(replica "$node")" ]
}

# identity: the system identifier of the primary, as it says it over the very connection that streams.
identity() {
  echo 'IDENTIFY_SYSTEM' | as_postgres psql -X -q -A -t -d "$conninfo replication=true" | cut -d '|' -f 1
}

stream() {
  configure > /dev/null
  within 60 streams_so && return
  ours=$(state 'Database system identifier')
  theirs=$(identity 2> /dev/null)
  [ -z "$theirs" ] || [ "$ours" = "$theirs" ] \
    || die "$data is of another cluster (system identifier $ours) than $primary ($theirs): move it away, and it is seeded again"
  die "no stream from $primary: $(grep -E 'FATAL|ERROR' "/var/log/postgresql/postgresql-$version-regionwise.log" | tail -n 2)"
}

# An index that was sorted by another version of a library finds rows no more, and says nothing.
collations_so() {
  databases=$(value 'SELECT datname FROM pg_database WHERE datallowconn') || return 1
  for one in $databases; do
    other=$(echo "SELECT string_agg(DISTINCT collname || ' ' || collversion, ', ') FROM pg_collation
      JOIN pg_index ON pg_collation.oid = ANY (indcollation) WHERE collversion <> pg_collation_actual_version(pg_collation.oid)
      UNION SELECT datcollate || ' ' || datcollversion FROM pg_database
      WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid)" | sql "$one") || return 1
    [ -z "$other" ] || die "indexes of database $one were sorted by other versions than this server has ($other): nodes of a cluster need one system"
  done
}

# Where it is, for the program that makes backups.
place() {
  echo "version=$version programs=$programs top=$top data=$data unit=$unit"
}

## What a person should know

notes() {
  pending=$(value "SELECT string_agg(name, ', ') FROM pg_settings WHERE pending_restart") || exit 1
  [ -z "$pending" ] || echo "needs a restart, which nobody makes but you (systemctl restart $unit): $pending"
  # shellcheck disable=SC2046,SC2086
  wanted=$(sql_words $(for one in $standbys; do replica "$one"; done))
  value "SELECT format('slot %s belongs to no standby of this node, and holds %s of WAL', slot_name,
    pg_size_pretty(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)))
    FROM pg_replication_slots WHERE slot_type = 'physical' AND slot_name NOT IN ($wanted)" || exit 1
  value "SELECT format('slot %s is lost: its standby must be seeded again', slot_name) FROM pg_replication_slots WHERE wal_status = 'lost'"
}

case ${1:-} in
  volume_made | make_volume | volume_filled | fill_volume | sizes_so | set_sizes | cluster_made | make_cluster | copy | running_so | run | configured_so | configure | note_loaded \
    | replicas_so | make_replicas | accounts_so | make_accounts | departed_so | forget_departed | migration_so | prepare_migration | sync_so | set_sync | streams_so | stream \
    | collations_so | votes | place | notes)
    "$1"
    ;;
  *)
    echo 'postgres: no such verb' >&2
    exit 2
    ;;
esac
