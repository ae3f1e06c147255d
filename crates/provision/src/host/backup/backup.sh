#!/bin/sh
# shellcheck disable=SC2154  # the files of settings assign them
# Written by provision-region. Backups of the cluster that this server has a node of, into the repository that
# /etc/regionwise/backup says. What ends in _so is a question that changes nothing. Nothing here stops or restarts the
# Postgres that serves.
#
#   backup run                 a backup, as a timer makes one every day
#   backup prove               restores what is there beside the data, looks at every page of it, and takes it away again
#   backup restore [TIME [TIMELINE]]
#                              brings a lost cluster back: all of it, or as it was at TIME ('2026-11-30 12:00:00+00')
#   backup status              what there is
#   backup VERB [WORD]         steps of provision-region
set -u
umask 022
export LC_ALL=C
cd / || exit 1
settings=/etc/regionwise/backup
postgres=/usr/local/lib/regionwise/postgres
state=/var/lib/regionwise-backup
alone=/run/regionwise-backup.lock
# shellcheck source=/dev/null
. /etc/regionwise/postgres/node
# shellcheck source=/dev/null
. "$settings/settings"
eval "$("$postgres" place)"
# Beside the data, where there is a disk for it. Its data lies two levels deep: nobody takes it for a cluster.
scratch=$top/restoring
log=/var/log/postgresql/postgresql-$version-regionwise.log
word=${2:-}
timeline=${3:-}
hour=3600
day=86400
# Seconds for one call of pgBackRest; more where it moves the data.
patience=300
# The process of a restore, and the MB that it leaves free: more than none beside a Postgres that serves.
fetching=
reserve=0

die() {
  echo "$1"
  exit 1
}

# For what may be over in an hour, before anything was fetched: the unit of the proof is started again after this, and only this.
later() {
  echo "$1"
  exit 75
}

# become WORD..: this process is pgBackRest from here on, as Postgres when it archives.
become() {
  exec runuser -u postgres -- timeout "$patience" pgbackrest --config="$settings/pgbackrest.conf" --config-include-path="$settings/conf.d" \
    --stanza="$cluster" "$@" 2>&1 9>&-
}

ask() {
  (become "$@")
}

# What went wrong, on one line: pgBackRest's messages have many, and a timeout has none.
short() {
  said=$(sed 's/^[-0-9: .]* P[0-9]* *//' | tr '\n\t' '  ' | tr -cd ' -~' | tr -s ' ' | sed 's/.*\(ERROR\|FATAL\|PANIC\)/\1/
    s/\*\*\* Path.*<Message>\([^<]*\)<.*/\1/; s/FormatError: .*/it is not encrypted with this passphrase/' | cut -c 1-400)
  echo "${said:-no answer in time}"
}

# sql DIRECTORY OF THE SOCKET, DATABASE, STATEMENT
sql() {
  echo "$3" | PGOPTIONS='-c synchronous_commit=local' runuser -u postgres -- psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$1" -p 5432 -d "$2" 2>&1 9>&-
}

value() {
  sql /var/run/postgresql postgres "$1"
}

# control DIRECTORY OF DATA, NAME
control() {
  runuser -u postgres -- "$programs/pg_controldata" -D "$1" 2> /dev/null 9>&- | sed -n "s/^$2: *//p"
}

system_of() {
  control "$1" 'Database system identifier'
}

is_standby() {
  [ -e "$data/standby.signal" ]
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

# disk 2: the MB of the disk of the data. disk 4: those that are free.
disk() {
  df -P -m "$top" | awk -v column="$1" 'NR == 2 { print $column }'
}

# limit BYTES: the seconds that they may take, at 5 MB/s, and ten minutes for what does not depend on them.
limit() {
  echo $((600 + $1 / 5000000))
}

when() {
  date -u -d "@$1" '+%Y-%m-%d %H:%M UTC'
}

# field FILE NAME
field() {
  sed -n "s/^$2=//p" "$state/$1" 2> /dev/null
}

# keep FILE, with its lines on stdin.
keep() {
  install -d -m 700 "$state" && cat > "$state/$1.new" && sync "$state/$1.new" && mv "$state/$1.new" "$state/$1"
}

# What expires must not be what is being restored.
lock() {
  exec 9> "$alone"
  flock -w 60 9 || later 'another backup, proof or restore is under way on this server'
}

# The cluster serves meanwhile, whoever asks for a backup or a proof.
step_back() {
  renice -n 15 -p $$
  ionice -c 3 -p $$
} > /dev/null 2>&1

# What the repository has of the cluster, as variables: system, major (of Postgres), newest, stopped, bytes, spoilt, full, backups (first segment and end of each, the oldest first), archive (its name), last (segment
# of it), since (segments from the newest backup on) and all (segments). Empty or 0 is none. Dies with the reason when it cannot be seen.
see() {
  said=$(ask info --output=json --log-level-console=error) || die "cannot look into $repository: $(echo "$said" | short)"
  seen=$(echo "$said" | perl -MJSON::PP -e '
    my ($one) = grep { $_->{name} eq $ARGV[0] } @{ JSON::PP->new->loose->decode(join "", <STDIN>) };
    my $status = $one->{repo}[0]{status} // $one->{status} // { code => 1 };
    # No stanza, no backup, no data of the stanza. All else is trouble.
    grep { $status->{code} == $_ } 0, 1, 2, 3 or die "$status->{message}\n";
    my $db = $one->{db}[-1] // {};
    my $ours = sub { grep { $_->{database}{id} == $db->{id} } @{ $_[0] // [] } };
    my @backups = $ours->($one->{backup});
    my ($newest) = reverse @backups;
    my ($full) = grep { $_->{type} eq "full" } reverse @backups;
    my @archive = $ours->($one->{archive});
    my ($first) = sort map { $_->{min} // () } @archive;
    my ($last) = reverse sort map { $_->{max} // () } @archive;
    my $number = sub { my $name = $_[0] // "0" x 24; hex(substr $name, 8, 8) * 256 + hex(substr $name, 16, 8) };
    my %said = (
      system => $db->{"system-id"} // "", major => ($db->{version} // "") =~ s/[.].*//r, newest => $newest->{label} // "", stopped => $newest->{timestamp}{stop} // 0,
      bytes => $newest->{info}{size} // 0, spoilt => $newest->{error} ? "yes" : "no", full => $full->{timestamp}{stop} // 0,
      backups => join("_", map { join "-", $_->{archive}{start} // "", $_->{timestamp}{stop} // 0 } @backups), archive => @archive ? $archive[-1]{id} : "", last => $last // "", since => $number->($last) - $number->($newest->{archive}{start} // $last), all => $number->($last) - $number->($first),
    );
    for (sort keys %said) { $said{$_} =~ /^[A-Za-z0-9_-]*$/ or die "it says a strange $_\n"; print "$_=$said{$_}\n" }
  ' "$cluster" 2>&1) || die "cannot look into $repository: $(echo "$seen" | short)"
  echo "$seen"
}

look() {
  seen=$(see) || later "$seen"
  eval "$seen"
}

## What follows from the server

here() {
  mkdir -p "$top"
  size=$(disk 2)
  [ -n "$size" ] || return 1
  echo '[global]'
  echo '# Half of the processors.'
  echo "process-max=$((($(nproc) + 1) / 2))"
  echo '# A quarter of the disk: a repository that is gone must not fill it. Beyond it the oldest that waits is dropped.'
  echo "archive-push-queue-max=$((size / 4))MiB"
  echo "[$cluster]"
  echo "pg1-path=$data"
}

here_so() {
  here | cmp -s - "$settings/conf.d/here.conf"
}

set_here() {
  here > "$settings/conf.d/here.conf.new" && chown root:postgres "$settings/conf.d/here.conf.new" \
    && chmod 640 "$settings/conf.d/here.conf.new" && mv "$settings/conf.d/here.conf.new" "$settings/conf.d/here.conf"
}

secrets_so() {
  cmp -s "$word/backup-secrets" "$settings/conf.d/secrets.conf" && [ "$(stat -c '%a %U:%G' "$settings/conf.d/secrets.conf")" = '640 root:postgres' ]
}

set_secrets() {
  install -d -m 750 -o root -g postgres "$settings/conf.d" \
    && install -m 640 -o root -g postgres "$word/backup-secrets" "$settings/conf.d/secrets.conf.new" \
    && mv "$settings/conf.d/secrets.conf.new" "$settings/conf.d/secrets.conf"
}

# A new cluster must not begin where a lost one can be brought back from. Dies with what to do.
place_so() {
  [ ! -s "$data/PG_VERSION" ] || return 0
  look
  [ -z "$newest" ] || die "there are no data here, and $repository has backups of $cluster, the newest of $(when "$stopped"): where a standby lives, promote it; else bring the cluster back with \`$0 restore\`, or name an empty bucket for a cluster that begins anew"
  [ -z "$system" ] || die "there are no data here, and $repository belongs to another cluster $cluster (system identifier $system): name an empty bucket for a cluster that begins anew"
}

## Backups

# After look.
is_ours() {
  [ -n "$system" ] || die "$repository has nothing of $cluster: set this server up again"
  ours=$(system_of "$data")
  [ -n "$ours" ] || die "cannot read $data/global/pg_control"
  [ "$system" = "$ours" ] || die "$repository belongs to another cluster $cluster (system identifier $system) than $data ($ours): name an empty bucket for this one"
  is_newest
}

# An old primary that still runs, or runs again, has the same identifier. A backup of its would be the newest, and end every restore.
is_newest() {
  here=$(value 'SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)') || die "cannot ask Postgres: $here"
  newer=${last%????????????????}
  [ $((0x${newer:-0})) -le $((0x${here:-0})) ] \
    || die "$repository has timeline $((0x$newer)) of $cluster, and $node is on $((0x${here:-0})): another node was promoted, or the cluster was restored elsewhere; fence this one"
}

# Everything for the first backup, and the first backup.
begun_so() {
  [ "$(field begun repository)" = "$repository" ] && [ "$(field begun system)" = "$(system_of "$data")" ] \
    && [ "$(field begun files)" = "$(files)" ]
}

# What it was tried with: another run may have changed it.
files() {
  cat "$settings/pgbackrest.conf" "$settings/conf.d/secrets.conf" 2> /dev/null | sha256sum | cut -d ' ' -f 1
}

begin() {
  [ "$(value 'SHOW archive_mode')" = on ] || die "Postgres archives only after a restart, which nobody makes but you: systemctl restart $unit"
  step_back
  lock
  look
  # It is made once. One that is there is never made anew, whoever it belongs to.
  [ -n "$system" ] || said=$(ask stanza-create) || die "cannot begin in $repository: $(echo "$said" | short)"
  look
  is_ours
  said=$(ask check --archive-timeout=120) || die "WAL does not arrive in $repository: $(echo "$said" | short)"
  make
  keep begun << END
repository=$repository
system=$system
files=$(files)
END
}

# A backup, after look: a full one in a week, else what has changed since that.
make() {
  size=$(value 'SELECT sum(pg_database_size(oid)) FROM pg_database') || die "cannot ask Postgres: $size"
  kind='diff'
  # A timer may come some hours early.
  [ $((full + 7 * day - 6 * hour)) -gt "$(date +%s)" ] || kind='full'
  patience=$(limit "$size")
  said=$(ask backup --type=$kind) || die "no backup in $repository: $(echo "$said" | short)"
  look
  [ "$spoilt" = no ] || die "backup $newest has pages that fail their checksum: the disk of this server may be failing"
  echo "backup $newest of $(when "$stopped"), $((bytes / 1000000)) MB"
}

run() {
  ! is_standby || { echo "$node is a standby, and its primary makes the backups"; exit 0; }
  step_back
  lock
  keep_dropped
  clear
  look
  is_ours
  make
}

## Bringing back

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
    my ($newest) = reverse sort grep { /^[0-9A-F]{8}[.]history$/ && $all->{$_}{time} <= $ARGV[0] } keys %$all;
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
  trap clear EXIT
  trap 'echo "stopped by a signal"; exit 1' HUP INT TERM
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
  trap clear EXIT
  trap 'echo "stopped by a signal"; exit 1' HUP INT TERM
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

## What a person should know

archive_notes() {
  mode=$(value 'SHOW archive_mode') || mode="unknown: $mode"
  if [ "$mode" != on ]; then
    echo "no WAL is archived, and no backup can be made (archive_mode is $mode): the cluster is older than its backups, and archives only after a restart, which nobody makes but you: systemctl restart $unit"
    return
  fi
  late=$(value "SELECT CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') THEN
    format('WAL is not archived, at the last try at %s (%s)', to_char(last_failed_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'), last_failed_wal) END
    FROM pg_stat_archiver") || late="cannot ask Postgres: $late"
  [ -n "$late" ] || [ -z "$(find "$data/pg_wal/archive_status" -name '*.ready' -mmin +10 2> /dev/null)" ] \
    || late='WAL has waited to be archived for more than 10 minutes'
  [ -z "$late" ] || echo "$late: what is written now is in no backup"
}

# On a disk that has less than the WAL may take that waits, nothing is dropped in time.
room_notes() {
  most=$(sed -n 's/^archive-push-queue-max=\([0-9]*\)MiB$/\1/p' "$settings/conf.d/here.conf")
  left_free=$(disk 4)
  [ "${left_free:-0}" -ge "${most:-0}" ] \
    || echo "$top has ${left_free:-no} MB left, and when the bucket cannot be reached up to $most MB of WAL wait: the disk would be full before, and Postgres stop; make room, or take a larger disk"
}

# WAL that pgBackRest dropped: it says so in the log of Postgres and nowhere else, and Postgres takes it for archived. The log goes
# with the weeks, so every run keeps it.
keep_dropped() {
  dropped=$(cat "$log.1" "$log" 2> /dev/null | sed -n "s/^\([-0-9]* [0-9:]*\).* WARN: dropped WAL file '\([0-9A-F]\{24\}\)'.*/\2 \1/p" \
    | sort -u - "$([ -e "$state/dropped" ] && echo "$state/dropped" || echo /dev/null)")
  [ -z "$dropped" ] || echo "$dropped" | keep dropped
}

# A gap is closed by the backup after it, and forgotten once no backup is older than it.
dropped_notes() {
  [ -r "$log" ] || echo "cannot read $log: nobody knows whether WAL was dropped"
  keep_dropped
  echo "$dropped" | perl -MPOSIX=strftime -e '
    my @backups = map { [split /-/] } split /_/, shift // "";
    my %said;
    while (<STDIN>) {
      my ($segment, $time) = /^(\w{24}) (.*)/ or next;
      next if @backups && $backups[0][0] gt $segment;
      my ($after) = grep { $_->[0] gt $segment } @backups;
      my $end = $after ? strftime("the backup of %Y-%m-%d %H:%M UTC", gmtime $after->[1]) : "the next backup";
      print "no point in time between WAL $segment and $end comes back: WAL was dropped at $time, as too much waited to be archived\n"
        unless $said{$end}++;
    }
  ' "${backups:-}"
}

proof_notes() {
  now=$(date +%s)
  [ ! -e "$state/failed" ] || echo "the last proof failed at $(when "$(field failed time)"): $(field failed why)"
  if ! proven_so; then
    echo "no backup was ever proven to come back: \`$0 prove\`"
  elif [ $(($(field proof time) + 8 * day)) -lt "$now" ]; then
    echo "the last proof that backups come back is of $(when "$(field proof time)"): \`systemctl status regionwise-backup-proof.timer\`"
  fi
}

# The timer comes every 24 hours, and a backup takes its time.
backup_notes() {
  other=$(is_ours) || { echo "$other"; return; }
  [ "$spoilt" = no ] || echo "backup $newest has pages that fail their checksum: the disk of this server may be failing"
  if [ -z "$newest" ]; then
    echo "$repository has no backup"
  elif [ $((stopped + 26 * hour)) -lt "$(date +%s)" ]; then
    echo "the last backup is of $(when "$stopped"): \`systemctl status regionwise-backup.service\`"
  fi
}

notes() {
  if seen=$(see); then
    eval "$seen"
    is_standby || backup_notes
  else
    echo "$seen"
  fi
  is_standby || { archive_notes; room_notes; dropped_notes; proof_notes; }
}

status() {
  ask info
  [ ! -e "$state/proof" ] || echo "last proof: $(when "$(field proof time)"), backup $(field proof backup) in $(field proof seconds) s"
  notes
}

case ${1:-} in
  run | prove | restore | status | here_so | set_here | secrets_so | set_secrets | place_so | begun_so | begin | proven_so | notes) "$1" ;;
  *)
    echo 'backup: no such verb' >&2
    exit 2
    ;;
esac
