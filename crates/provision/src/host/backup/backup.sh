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
word=${2:-}
hour=3600
day=86400
# Seconds for one call of pgBackRest; more where it moves the data.
patience=300

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
