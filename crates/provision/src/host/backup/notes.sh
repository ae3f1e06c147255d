
## What a person should know

log=/var/log/postgresql/postgresql-$version-regionwise.log

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
  # Somebody waits for the end of the run, and a repository that can be seen is seen in a second.
  patience=90
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
