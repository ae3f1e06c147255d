#!/usr/bin/env bash
# Rolls out, from cron, what somebody puts into a directory. Says something only when there is something to do, so that cron's
# mail is the alert.
#
#   */5 * * * *  cd /opt/shop && ./rollout-cron.sh /opt/shop/releases
#
# A release is DIR/NEXT/NAME.toml with its files beside it; the oldest goes first. It ends in DIR/done, or in DIR/failed, or stays:
# held (10) with a file DIR/held that somebody removes to go on, and unreachable or locked (20, 22) until the next time.
# Needs regions.toml in the current directory, `rollout` (scripts/rollout of regionwise) and the binaries in PATH.
set -uo pipefail

: "${1:?usage: rollout-cron.sh DIR}"
mkdir -p "$1/next" "$1/done" "$1/failed" && directory=$(cd "$1" && pwd) || exit 2

# A run that is still under way is not an alert.
exec 9> "$directory/lock"
flock --nonblock 9 || exit 0
[ ! -e "$directory/held" ] || exit 0

release=$(find "$directory/next" -maxdepth 1 -name '*.toml' -printf '%T@ %p\n' | sort -n | head -n 1 | cut -d ' ' -f 2-)
[ -n "$release" ] || exit 0
name=$(basename "$release" .toml)

# The same name each time: after a power failure, or a server that did not answer, it goes on where it was.
# 9>&-: a release that is started here must not keep the lock.
rollout "$release" --rollout "cron-$name" --log "$directory/rollout.jsonl" --outputs "$directory/$name.env" \
  > "$directory/$name.log" 2>&1 9>&-
code=$?

echo "$name ended $code: $(tr '\n' ' ' < "$directory/$name.env")"
case $code in
  0) mv "$release" "$directory/done/" ;;
  10)
    cp "$directory/$name.log" "$directory/held"
    echo "held; to go on, remove $directory/held" ;;
  20 | 22) echo 'tried again at the next time' ;;
  *) mv "$release" "$directory/failed/" ;;
esac
[ "$code" = 0 ] || tail -n 20 "$directory/$name.log"
exit "$code"
