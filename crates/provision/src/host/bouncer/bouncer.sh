#!/bin/sh
# shellcheck disable=SC2154  # the file of settings assigns them
# Written by provision-region. The PgBouncer of this host. What ends in _so is a question that changes
# nothing. Never restarts a PgBouncer that runs with our configuration.
#
#   bouncer VERB [DIRECTORY OF STAGED FILES]
set -u
export LC_ALL=C
cd / || exit 1
settings=/etc/regionwise/pgbouncer
# shellcheck source=/dev/null
. "$settings/server"
unit=pgbouncer.service
loaded=/run/regionwise/pgbouncer-loaded
staged=${2:-}

die() {
  echo "$1"
  exit 1
}

# The password itself: with it PgBouncer proves to the node that it may log in. Its account reads it, and root.
users() {
  password=$(head -n 1 "$staged/password-$account") || return 1
  [ -n "$password" ] || return 1
  printf '"%s" "%s"\n' "$account" "$(printf '%s' "$password" | sed 's/"/""/g')"
}

users_so() {
  users > /dev/null && users | cmp -s - "$settings/users.txt" \
    && [ "$(stat -c '%a %U:%G' "$settings/users.txt")" = '640 root:postgres' ]
}

set_users() {
  (umask 077 && users > "$settings/users.txt.new") || die "there is no password for $account"
  chown root:postgres "$settings/users.txt.new" && chmod 640 "$settings/users.txt.new" \
    && mv "$settings/users.txt.new" "$settings/users.txt"
}

version() {
  /usr/sbin/pgbouncer --version | sed -n 's/^PgBouncer \([0-9]*\)\.\([0-9]*\).*/\1 \2/p'
}

# Named prepared statements in transaction pooling came with 1.21.
prepares() {
  # shellcheck disable=SC2046  # two numbers
  set -- $(version)
  [ $# = 2 ] || die 'cannot read the version of PgBouncer'
  [ "$1" -gt 1 ] || [ "$2" -ge 21 ]
}

prepared() {
  if prepares; then echo 'max_prepared_statements = 200'; else echo '; This version knows no prepared statements.'; fi
}

prepared_so() {
  prepared | cmp -s - "$settings/prepared.ini"
}

set_prepared() {
  prepared > "$settings/prepared.ini.new" && mv "$settings/prepared.ini.new" "$settings/prepared.ini"
}

ours() {
  tr '\0' ' ' < "/proc/$(systemctl show -p MainPID --value "$unit")/cmdline" | grep -qF " $settings/pgbouncer.ini "
}

# What it reads at a start and at a reload.
files() {
  cat "$settings/pgbouncer.ini" "$settings/prepared.ini" "$settings/users.txt" "$settings"/*.crt 2> /dev/null | sha256sum
}

note_loaded() {
  mkdir -p "${loaded%/*}" && files > "$loaded"
}

running_so() {
  files | cmp -s - "$loaded" || return 1
  systemctl -q is-active "$unit" && systemctl -q is-enabled "$unit" && ours && ss -Hltn "sport = :$port" | grep -q .
}

# Debian's package has started one with its own configuration, which knows no database.
run() {
  systemctl daemon-reload && systemctl --quiet enable "$unit" || exit 1
  if ours; then note_loaded && systemctl reload "$unit"; else systemctl restart "$unit"; fi || { rm -f "$loaded"; exit 1; }
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    ! running_so || return 0
    sleep 1
  done
  die "PgBouncer does not listen: $(journalctl -q -n 3 -o cat -u "$unit")"
}

# ask CONNECTION, as the product.
ask() {
  PGPASSWORD=$(head -n 1 "$staged/password-$account") PGCONNECT_TIMEOUT=10 \
    timeout 30 psql -X -q -A -t -w -d "$1 user=$account" -c 'SELECT 1' 2>&1
}

# A new login at the node, as PgBouncer would make it, and one through PgBouncer: it listens also where nobody is behind it, and
# answers over a connection that it has also where no new one is let in.
logins_so() {
  for name in "$database" "${database}_read"; do
    way=$(sed -n "s/^$name = //p" "$settings/pgbouncer.ini")
    said=$(ask "$way sslmode=verify-ca sslrootcert=$settings/nodes.crt") || return 1
    said=$(ask "host=127.0.0.1 port=$port dbname=$name") || return 1
  done
}

log_in() {
  for _ in 1 2 3; do
    ! logins_so || return 0
    sleep 2
  done
  die "$account does not get through to $name: $(echo "${said:-no answer within 30 s}" | tail -n 1); $(journalctl -q -n 2 -o cat -u "$unit" | tr '\n' ' ')"
}

notes() {
  prepares || echo "PgBouncer $(version | tr ' ' .) forgets prepared statements between transactions: let the driver not prepare, or connect to Postgres itself"
}

case ${1:-} in
  users_so | set_users | prepared_so | set_prepared | running_so | run | logins_so | log_in | note_loaded) "$1" ;;
  notes) notes || exit 1 ;;
  *)
    echo 'bouncer: no such verb' >&2
    exit 2
    ;;
esac
