#!/bin/sh
# shellcheck disable=SC2154  # the file of settings assigns them
# Written by provision-region. The Redis of this server, as /etc/regionwise/redis/server says it. What ends in _so is a
# question that changes nothing. Never restarts a Redis that runs with our configuration.
#
#   redis VERB [DIRECTORY OF STAGED FILES]
set -u
export LC_ALL=C
settings=/etc/regionwise/redis
# shellcheck source=/dev/null
. "$settings/server"
staged=${2:-}
unit=redis-server.service

die() {
  echo "$1"
  exit 1
}

# The password of root's own account, which was made here.
as_admin() {
  REDISCLI_AUTH=$(cat "$settings/admin") redis-cli --no-auth-warning --user regionwise -h 127.0.0.1 "$@" 2>&1
}

hash_of() {
  head -n 1 "$1" | tr -d '\n' | sha256sum | cut -d ' ' -f 1
}

# Redis keeps only the hash of a password, and so does this file. Each line is whole also for a user that is there already.
users() {
  [ "$(head -n 1 "$staged/redis-password" | tr -d '\n' | wc -c)" -ge 8 ] || return 1
  echo 'user default reset off'
  echo "user regionwise reset on #$(hash_of "$settings/admin") ~* &* +@all"
  echo "user $account reset on #$(hash_of "$staged/redis-password") ~* &* +@all -@admin -@dangerous +info"
}

users_so() {
  [ -s "$settings/admin" ] && users | cmp -s - "$settings/users.acl" \
    && [ "$(stat -c '%a %U:%G' "$settings/users.acl")" = '640 root:redis' ]
}

set_users() {
  [ -s "$settings/admin" ] || (umask 077 && head -c 32 /dev/urandom | base64 > "$settings/admin") || exit 1
  (umask 077 && users > "$settings/users.acl.new") || die 'a Redis password must have eight characters or more'
  chown root:redis "$settings/users.acl.new" && chmod 640 "$settings/users.acl.new" \
    && mv "$settings/users.acl.new" "$settings/users.acl"
}

sizes() {
  memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
  [ -n "$memory" ] || return 1
  echo "# Half of the memory: a copy that is written to the disk needs the other half at worst."
  echo "maxmemory $((memory / 2))mb"
}

sizes_so() {
  sizes | cmp -s - "$settings/sizes.conf"
}

set_sizes() {
  sizes > "$settings/sizes.conf.new" && mv "$settings/sizes.conf.new" "$settings/sizes.conf"
}

# Whether the Redis that runs has our configuration.
ours() {
  [ -s "$settings/admin" ] && as_admin INFO server | tr -d '\r' | grep -qx "config_file:$settings/redis.conf"
}

running_so() {
  systemctl -q is-active "$unit" && systemctl -q is-enabled "$unit" && ours
}

# Debian's package has started one with its own configuration. It is new when nobody has written anything.
run() {
  ours || {
    keys=$(redis-cli -h 127.0.0.1 DBSIZE 2> /dev/null)
    case $keys in
      '' | 0 | *refused*) ;;
      *) die "a Redis with keys runs here already ($keys): move it, or choose another server" ;;
    esac
    systemctl daemon-reload && systemctl --quiet enable "$unit" && systemctl restart "$unit" || exit 1
  }
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    ! running_so || return 0
    sleep 1
  done
  die "Redis does not answer: $(journalctl -q -n 3 -o cat -u "$unit")"
}

as_account() {
  REDISCLI_AUTH=$(head -n 1 "$staged/redis-password") redis-cli --no-auth-warning --user "$account" -h 127.0.0.1 "$@" 2>&1
}

# The users of the one that runs, as it says them, and the file that they follow from. After each start it names the commands
# of a category in another order.
given() {
  as_admin ACL LIST | perl -pe 's/(?: -[^@\s]+)+/join "", sort split m{(?= )}, $&/ge; s/(?: [+][^@\s]+)+/join "", sort split m{(?= )}, $&/ge' \
    | cat - "$settings/users.acl" | sha256sum
}

# Somebody may have changed the users of the one that runs: no file says it.
logins_so() {
  [ "$(given)" = "$(cat "$settings/users.given" 2> /dev/null)" ] && [ "$(as_account PING)" = PONG ] || return 1
  case $(as_account CONFIG GET dir) in NOPERM*) ;; *) return 1 ;; esac
  case $(redis-cli -h 127.0.0.1 PING 2>&1) in NOAUTH*) ;; *) return 1 ;; esac
}

# What makes the users of the one that runs those of the file. ACL LOAD would do so, too, and end every connection.
changes() {
  while read -r _ name rules; do echo "ACL SETUSER $name $rules"; done < "$settings/users.acl"
  as_admin ACL USERS | tr -d '\r' | while read -r name; do
    awk -v name="$name" '$2 == name { found = 1 } END { exit !found }' "$settings/users.acl" || echo "ACL DELUSER $name"
  done
}

give_users() {
  # After a start it reads its data first, at some 100 MB a second.
  for _ in $(seq 300); do
    as_admin INFO persistence | tr -d '\r' | grep -qx 'loading:1' || break
    sleep 1
  done
  wrong=$(changes | as_admin | tr -d '\r' | grep -vx 'OK\|[0-9]*')
  [ -z "$wrong" ] || die "Redis does not take its users: $wrong"
  (umask 077 && given > "$settings/users.given")
  logins_so || die "Redis does not let in whom its file names, and nobody else: $account is told $(as_account PING)"
}

# What the file says and the one that runs does not do yet.
notes() {
  while read -r name wanted; do
    case $name in
      bind | maxmemory-policy | appendonly | appendfsync)
        now=$(as_admin CONFIG GET "$name" | tr -d '\r' | sed -n 2p)
        [ "$now" = "$wanted" ] || echo "needs a restart, which nobody makes but you (systemctl restart $unit): $name is $now, and not $wanted"
        ;;
    esac
  done < "$settings/redis.conf"
}

case ${1:-} in
  users_so | set_users | sizes_so | set_sizes | running_so | run | logins_so | give_users | notes) "$1" ;;
  *)
    echo 'redis: no such verb' >&2
    exit 2
    ;;
esac
