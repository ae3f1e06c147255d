
## Bringing back

# Beside the data, where there is a disk for it. Its data lies two levels deep: nobody takes it for a cluster.
scratch=$top/restoring
timeline=${3:-}
# The process that fetches, and the MB that it leaves free: more than none beside a Postgres that serves.
fetching=
reserve=0

# Of a proof that was killed, too.
clear() {
  [ -z "$fetching" ] || { kill "$fetching" && wait "$fetching"; } 2> /dev/null
  [ -d "$scratch" ] || return 0
  # After a crash of the server the number in the file may be anybody's.
  left=$(head -n 1 "$scratch/data/postmaster.pid" 2> /dev/null)
  if [ -n "$left" ] && [ "$(readlink "/proc/$left/cwd")" = "$scratch/data" ]; then
    runuser -u postgres -- "$programs/pg_ctl" -D "$scratch/data" -m immediate -w -t 60 stop > /dev/null 2>&1 9>&-
  fi
  rm -rf "$scratch"
}

# What is on its way out is not stopped again, nor are its helpers: systemd says it to all of them, and twice, and then nobody
# listens any more to what is said.
leave_nothing() {
  trap '' HUP INT TERM PIPE
  clear
}

# From here on nothing is left, however it ends.
leaving_nothing() {
  trap '' PIPE
  trap leave_nothing EXIT
  trap 'echo "stopped by a signal"; exit 1' HUP INT TERM
}

# A Postgres that serves stops when its disk is full, so what is restored beside it gives way.
roomy() {
  left_free=$(disk 4)
  [ "${left_free:-0}" -ge "$reserve" ]
}

cramped() {
  die "$top has ${left_free:-no} MB left, and $reserve MB must stay free for the Postgres that serves: what was restored so far is gone again"
}

# room BYTES: before anything is fetched. The archive comes piece by piece, and recovery keeps about as much as a checkpoint needs.
room() {
  size=$(disk 2)
  spare=$((${size:-0} / 10))
  [ "$spare" -lt 2048 ] || spare=2048
  need=$(($1 / 1000000 + spare + reserve))
  roomy
  [ "${left_free:-0}" -gt "$need" ] || die "no place to restore in: $top has ${left_free:-no} MB left, and backup $newest needs $need MB"
}

# fetch WORD..: the files of a backup.
fetch() {
  become restore --pg1-path="$scratch/data" --log-level-console=warn "$@" > "$scratch/log" &
  fetching=$!
  while kill -0 "$fetching" 2> /dev/null; do
    roomy || cramped
    sleep 1
  done
  wait "$fetching" || { fetching=; die "cannot restore from $repository: $(short < "$scratch/log")"; }
  fetching=
}

alone_answers() {
  runuser -u postgres -- "$programs/pg_isready" -q -h "$scratch/socket" -p 5432 9>&- || ! kill -0 "$server" 2> /dev/null || ! roomy
}

# lived TIME: the timeline that was the cluster then, which is the newest that the archive had. Recovery takes the newest of today
# by itself: for a time that an earlier restore undid it would end where that one did, without a word.
lived() {
  at=$(date -u -d "$1" +%s 2> /dev/null) || die "cannot read the time '$1': write it like '2026-11-30 12:00:00+00'"
  said=$(ask repo-ls "archive/$cluster/$archive" --filter='^[0-9A-F]{8}[.]history$' --output=json --log-level-console=error) \
    || die "cannot look into $repository: $(echo "$said" | short)"
  echo "$said" | perl -MJSON::PP -e '
    my $all = JSON::PP->new->decode(join "", <STDIN>);
    my @timelines = grep { /^[0-9A-F]{8}[.]history$/ } keys %$all;
    $all->{$_}{time} or die "it does not say of when $_ is\n" for @timelines;
    my ($newest) = reverse sort grep { $all->{$_}{time} <= $ARGV[0] } @timelines;
    # Before the first of them: that of the backup.
    print $newest ? hex substr $newest, 0, 8 : "current";
  ' "$at" 2>&1 || exit 1
}

# bring_back ARCHIVE_MODE SEGMENTS WORD..: to the end of the archive, or to what the words for pgBackRest say, by a Postgres that
# nobody can mistake for the cluster: no address, no replication, and none of its configuration. What somebody set with ALTER SYSTEM
# came along; it must not take the memory of the Postgres that serves. With ARCHIVE_MODE on what it writes waits to be archived
# until it is the cluster: before that nobody knows whether it will be, and a timeline in the archive is there for ever.
bring_back() {
  archive_mode=$1
  segments=$2
  shift 2
  [ -n "$newest" ] || die "$repository has no backup of $cluster"
  [ "$major" = "$version" ] || die "the backups are of Postgres $major, and this server has $version: no other reads its data; install postgresql-$major, and remove what is newer"
  clear
  room "$bytes"
  install -d -m 700 -o postgres -g postgres "$scratch" "$scratch/data" "$scratch/socket" "$scratch/tablespaces" || exit 1
  patience=$(limit "$bytes")
  fetch "$@"
  printf 'local all postgres peer\n' > "$scratch/pg_hba.conf" && : > "$scratch/postgresql.conf" \
    && chown postgres "$scratch/pg_hba.conf" "$scratch/postgresql.conf" || exit 1
  runuser -u postgres -- "$programs/postgres" -D "$scratch/data" -c config_file="$scratch/postgresql.conf" -c hba_file="$scratch/pg_hba.conf" \
    -c listen_addresses= -c unix_socket_directories="$scratch/socket" -c unix_socket_permissions=0700 -c port=5432 -c ssl=off \
    -c archive_mode="$archive_mode" -c archive_command=/bin/false -c hot_standby=off -c primary_conninfo= -c primary_slot_name= \
    -c synchronous_standby_names= -c max_logical_replication_workers=0 -c autovacuum=off -c shared_preload_libraries= \
    -c logging_collector=off -c log_destination=stderr -c cluster_name=regionwise-restore -c wal_level=replica \
    -c shared_buffers=128MB -c huge_pages=off -c work_mem=4MB -c maintenance_work_mem=64MB -c wal_buffers=-1 -c min_dynamic_shared_memory=0 \
    -c max_connections="$(control "$scratch/data" 'max_connections setting')" \
    -c max_prepared_transactions="$(control "$scratch/data" 'max_prepared_xacts setting')" \
    -c max_locks_per_transaction="$(control "$scratch/data" 'max_locks_per_xact setting')" \
    > "$scratch/log" 2>&1 < /dev/null 9>&- &
  server=$!
  # Nobody gets in before recovery has ended, and it is no standby any more.
  if ! within "$(($(limit "$bytes") + 2 * segments))" alone_answers || ! roomy || ! kill -0 "$server" 2> /dev/null; then
    roomy || cramped
    die "Postgres does not recover from $repository: $(short < "$scratch/log")"
  fi
  position=$(sql "$scratch/socket" postgres 'SELECT pg_last_wal_replay_lsn()') || die "cannot ask the restored Postgres: $position"
  reached=$(sql "$scratch/socket" postgres "SELECT to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS+00')") \
    || die "cannot ask the restored Postgres: $reached"
}

# An error of the repository ends a recovery as the end of the archive does, so the end is compared.
whole() {
  [ -n "$last" ] || die "$repository has a backup and no archive"
  segment=${last#????????}
  start=$(printf '%X/%X' "0x${segment%????????}" $((0x${segment#????????} * 16777216)))
  beyond=$(sql "$scratch/socket" postgres "SELECT '$position'::pg_lsn > '$start'::pg_lsn") || die "cannot ask the restored Postgres: $beyond"
  [ "$beyond" = t ] || die "recovery ended at $position, and the archive goes on to $last: there is a gap, or $repository failed meanwhile; if it stays so, \`$0 restore '$reached'\` brings back what is before it"
}

sound() {
  there=$(sql "$scratch/socket" postgres "SELECT count(*) FROM pg_database WHERE datname = '$database'") || die "cannot ask the restored Postgres: $there"
  [ "$there" = 1 ] || die "what was restored has no database $database"
  tables=$(sql "$scratch/socket" "$database" "SELECT count(*) FROM pg_stat_user_tables") || die "database $database does not open: $tables"
  runuser -u postgres -- "$programs/pg_ctl" -D "$scratch/data" -m fast -w -t 600 stop > /dev/null 2>&1 9>&- || die 'the restored Postgres does not stop'
  pages=$(runuser -u postgres -- "$programs/pg_checksums" --check -D "$scratch/data" 2>&1 9>&-) || die "pages of what was restored are damaged: $(echo "$pages" | tail -n 3 | tr '\n' ' ')"
  pages=$(echo "$pages" | sed -n 's/^Blocks scanned: *//p')
}

## The proof

proven_so() {
  [ "$(field proof repository)" = "$repository" ] && [ "$(field proof system)" = "$(system_of "$data")" ]
}

prove() {
  ! is_standby || { echo "$node is a standby, and its primary proves the backups"; exit 0; }
  step_back
  lock
  why=$(attempt 2>&1)
  code=$?
  echo "$why"
  if [ "$code" = 0 ]; then
    rm -f "$state/failed"
  else
    keep failed << END
time=$(date +%s)
why=$why
END
    exit "$code"
  fi
}

archived() {
  [ "$(value "SELECT left(last_archived_wal, 24) >= '$segment' FROM pg_stat_archiver")" = t ]
}

attempt() {
  leaving_nothing
  began=$(date +%s)
  look
  is_ours
  # What was written until now must come back.
  mark=$(value "SELECT pg_create_restore_point('regionwise-proof')") || die "cannot ask Postgres: $mark"
  segment=$(value "SELECT pg_walfile_name('$mark') FROM (SELECT pg_switch_wal()) AS done") || die "cannot ask Postgres: $segment"
  within 180 archived || later "WAL does not arrive in $repository: $segment was not archived within 180 s"
  look
  # It has grown since its backup, and that comes with the archive.
  now=$(value 'SELECT sum(pg_database_size(oid)) FROM pg_database') || die "cannot ask Postgres: $now"
  [ "$now" -le "$bytes" ] || bytes=$now
  reserve=$(($(disk 2) / 10))
  bring_back off "$since" --tablespace-map-all="$scratch/tablespaces"
  beyond=$(value "SELECT '$position'::pg_lsn >= '$mark'::pg_lsn")
  [ "$beyond" = t ] || die "recovery ended at $position, and $mark was archived before: there is a gap, or $repository failed meanwhile"
  [ "$(system_of "$scratch/data")" = "$ours" ] || die 'what was restored is of another cluster'
  sound
  size=$(du -s -B 1000000 "$scratch" | cut -f 1)
  took=$(($(date +%s) - began))
  keep proof << END
repository=$repository
system=$ours
time=$(date +%s)
backup=$newest
position=$position
reached=$reached
seconds=$took
megabytes=$size
pages=$pages
END
  echo "backup $newest and the archive to $position came back in $took s: $size MB, $tables tables in $database, $pages pages without an error"
}

## A lost cluster

restore() {
  lock
  [ "$part" = primary ] || die "$node is a standby of $cluster: restore its primary, and it is seeded from there"
  ! systemctl -q is-active "$unit" || die "a Postgres runs here: stop it with \`systemctl stop $unit\`, if it is the one to replace"
  [ ! -e "$data" ] || [ -z "$(ls -A "$data")" ] || die "$data is not empty: move it to another disk or to $top/before/, if it is what is to be replaced"
  [ -z "$volume" ] || mountpoint -q "$top" || die "volume $volume is not mounted at $top: set this server up first, as far as it goes"
  look
  leaving_nothing
  if [ -n "$word" ]; then
    [ -n "$timeline" ] || timeline=$(lived "$word") || die "$timeline"
    bring_back on "$all" --type=time --target="$word" --target-action=promote --target-timeline="$timeline"
  else
    bring_back on "$since"
    whole
  fi
  sound
  # How it got here is over; settings that somebody made there stay.
  sed -i '/^# Recovery settings generated by pgBackRest/d; /^restore_command = /d; /^recovery_target/d' "$scratch/data/postgresql.auto.conf" \
    && sync || exit 1
  # They must be seeded anew, and no commit may wait for them until then.
  rm -f /etc/regionwise/postgres/sync.conf "$state/begun" "$state/proof"
  rmdir "$data" 2> /dev/null
  mkdir -p "${data%/*}" && mv "$scratch/data" "$data" && sync || exit 1
  echo "$cluster is back as it was at ${reached:-the end of backup $newest} ($position), $tables tables in $database"
  echo 'set this server up again with provision-region: it starts Postgres, and makes a new backup'
}
