#!/bin/sh
# shellcheck disable=SC2329  # the functions of a step are called by its number
#
# Made by provision-region. Brings this server to the steps at the end, or says which of them would change something.
#
#   script apply|check [DIRECTORY OF STAGED FILES]
#   script confirm       keep what a guarded step changed, after a fresh login worked
#
# Every step prints one line: step, a state (ok, changed, would, failed), its name, and what there is to say, with tabs.
# Some also print `note`, step and text, or `fact`, name and value.
# The last line is `end`: done, armed (confirm it within GUARD_SECONDS s, or it is undone), failed, locked or pending.
set -u
umask 022
export LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mode=${1:-}
# shellcheck disable=SC2034  # the shell of a step finds there what came with it
staged=${2:-}
guard=GUARD_DIRECTORY
guard_lock=/run/regionwise-guard.lock
boot_unit=regionwise-revert-at-boot.service
changed=' '
armed=no

end() {
  printf 'end\t%s\n' "$1"
  [ "$1" = 'done' ] || [ "$1" = armed ] || exit 1
  exit 0
}

say() {
  printf 'step\t%s\t%s\t%s\n' "$1" "$2" "${3:-}"
}

case $mode in
  confirm)
    # Without a guard either nothing waits, or it was undone.
    [ -d "$guard" ] || { [ ! -e /run/regionwise-reverted ]; exit; }
    exec sh "$guard/confirm"
    ;;
  apply | check) ;;
  *)
    echo 'usage: script apply|check [DIRECTORY], script confirm' >&2
    exit 2
    ;;
esac

work=$(mktemp -d /run/regionwise-steps.XXXXXX) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT PIPE TERM
exec 9> /run/regionwise-steps.lock
flock -n 9 || end locked

# One line of whatever a command printed.
short() {
  tail -n 8 "$work/out" | tr -s '\n\t' '  ' | cut -c 1-800
}

fail() {
  text=$(short)
  # A server that is half changed behind a new firewall is nobody's wish.
  if [ "$armed" = yes ]; then
    flock -u 8
    systemctl --quiet stop regionwise-revert.timer
    [ ! -d "$guard" ] || sh "$guard/revert" > "$work/out" 2>&1 8>&- 9>&-
    if [ -e /run/regionwise-reverted ]; then
      text="$text; firewall and sshd were put back as they were"
    else
      text="$text; putting firewall and sshd back did not work: $(short)"
    fi
  fi
  say failed "$1" "$text"
  end failed
}

if [ -d "$guard" ]; then
  # Without its timer nobody undoes it any more: the run that made it was killed in between.
  for unit in regionwise-revert.timer regionwise-revert.service; do
    ! systemctl -q is-active $unit 2> /dev/null || end pending
  done
  [ "$mode" = apply ] || end pending
  if [ -e "$guard/revert" ]; then
    sh "$guard/revert" > "$work/out" 2>&1 9>&- || fail undo
  fi
  rm -rf "$guard"
fi

# Whether to go on: in check mode a step is only named.
wanted() {
  changed="$changed$1 "
  if [ "$mode" = check ]; then
    say would "$1"
    return 1
  fi
}

did() {
  in_time "$1"
  [ "$armed" = no ] || flock -u 8
  say changed "$1"
}

# What was changed under a guard is undone when its time is over, and nothing may build on it then.
in_time() {
  [ "$armed" = yes ] || return 0
  [ ! -d "$guard" ] || [ -e "$guard/reverting" ] || return 0
  echo 'firewall and sshd were not confirmed within GUARD_SECONDS s, because this script had not ended' > "$work/out"
  fail "$1"
}

# Only one of undoing and keeping happens, whatever the timing: each holds the lock to its end. A step that is changing
# something holds it too, but one that hangs must not keep everybody out.
alone() {
  echo "exec 8> $guard_lock"
  echo 'flock -w 20 8'
}

# The boot unit goes last, and the directory at once: a reset in between finds all of it, or nothing.
forget() {
  echo "rm -rf $guard.gone && mv $guard $guard.gone && rm -rf $guard.gone"
  echo "systemctl --quiet disable $boot_unit"
  echo "rm -f /etc/systemd/system/$boot_unit"
}

restore() {
  alone
  echo "[ -d $guard ] || exit 0"
  echo "if [ ! -e $guard/decided ]; then"
  echo "touch $guard/reverting"
  echo 'bad='
  guarded_files | while read -r path; do
    if [ -e "$path" ]; then
      echo "cp -p '$guard/files$path' '$path' || bad=1"
    else
      echo "rm -f '$path' || bad=1"
    fi
  done
  echo "sh -e $guard/undo || bad=1"
  echo 'sync'
  # All of it stays then, for another try: of its service, of the next boot, of the next run.
  echo "[ -z \"\$bad\" ] || exit 1"
  echo 'touch /run/regionwise-reverted'
  echo 'fi'
  forget
}

keep() {
  alone
  echo "if [ ! -d $guard ]; then echo 'cannot keep it: it was undone' >&2; exit 1; fi"
  echo "if [ ! -e $guard/decided ]; then"
  echo "[ ! -e $guard/reverting ] && sh -e $guard/keep && sync && mkdir $guard/decided && sync || exit 1"
  echo 'fi'
  echo 'systemctl --quiet stop regionwise-revert.timer'
  forget
}

# Before the first guarded change: what is needed to undo it without anybody's help.
arm() {
  [ "$armed" = no ] || return 0
  rm -f /run/regionwise-reverted
  mkdir -m 700 "$guard" "$guard/files" && exec 8> "$guard_lock" || return 1
  guarded_files | while read -r path; do
    if [ -e "$path" ]; then
      mkdir -p "$guard/files$(dirname "$path")" && cp -p "$path" "$guard/files$path" || exit 1
    fi
  done || return 1
  guarded_undo > "$guard/undo" && guarded_keep > "$guard/keep" && keep > "$guard/confirm" \
    && restore > "$guard/revert.new" && mv "$guard/revert.new" "$guard/revert" || return 1
  # A reboot takes the timer away, and must not make the change last.
  cat > "/etc/systemd/system/$boot_unit" << END && systemctl --quiet enable "$boot_unit" || return 1
[Unit]
Description=Undo a change of firewall or sshd that nobody has confirmed
ConditionPathExists=$guard/revert
DefaultDependencies=no
After=local-fs.target
# Before sysinit.target, so that it restarts nothing that waits for it.
Before=sysinit.target regionwise-firewall.service ssh.service ssh.socket

[Service]
Type=oneshot
TimeoutStartSec=60
ExecStart=/bin/sh $guard/revert

[Install]
WantedBy=sysinit.target
END
  # The locks are not for what lives longer than this script.
  systemd-run --quiet --collect --unit=regionwise-revert --timer-property=AccuracySec=1s --property=Restart=on-failure \
    --property=RestartSec=10 --on-active=GUARD_SECONDS sh "$guard/revert" 8>&- 9>&- || return 1
  # Somebody who is locked out resets the machine: the way back must be on the disk before the change is.
  sync
  armed=yes
}

# before NAME GUARDED: the way back comes first.
before() {
  [ "$2" = guarded ] || return 0
  if ! arm > "$work/out" 2>&1; then
    [ ! -e "$guard/revert" ] || sh "$guard/revert" >> "$work/out" 2>&1 8>&- 9>&-
    rm -rf "$guard"
    fail "$1"
  fi
  flock 8
  in_time "$1"
}

installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2> /dev/null)" = installed ]
}

# The package to install for `a|b`, or nothing when one of them is there.
lacking() {
  for package in $(echo "$1" | tr '|' ' '); do
    ! installed "$package" || return 0
  done
  echo "${1%%|*}"
}

# A server that has just booted may be at its own `apt-get update`, for whose lock apt does not wait.
refresh() {
  for _ in 1 2 3 4 5 6; do
    apt-get -qq -o DPkg::Lock::Timeout=300 update && return 0
    sleep 10
  done
  return 1
}

# packages NAME PACKAGE..
packages() {
  name=$1
  shift
  missing=
  for one in "$@"; do
    missing="$missing $(lacking "$one")"
  done
  # shellcheck disable=SC2086  # a list of package names
  set -- $missing
  if [ $# = 0 ]; then
    say ok "$name"
    return
  fi
  wanted "$name" || return 0
  {
    # What a reboot interrupted comes first. Nothing of somebody's is removed for it.
    dpkg --configure -a --force-confold && refresh \
      && apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold --no-remove \
        --no-install-recommends install "$@" 9>&-
  } > "$work/out" 2>&1 || fail "$name"
  did "$name"
}

same() {
  [ ! -L "$2" ] && cmp -s "$1" "$2" && owned "$2" "$3" "$4"
}

owned() {
  [ "$(stat -c '%a %U:%G' "$1")" = "$2 $3" ]
}

put() {
  mkdir -p "$(dirname "$2")" && cp "$1" "$2.regionwise-new" && chown "$4" "$2.regionwise-new" \
    && chmod "$3" "$2.regionwise-new" && mv -f "$2.regionwise-new" "$2"
}

# file NAME PATH MODE OWNER plain|guarded, with the content on stdin
file() {
  cat > "$work/new"
  if same "$work/new" "$2" "$3" "$4"; then
    say ok "$1"
    return
  fi
  wanted "$1" || return 0
  before "$1" "$5"
  put "$work/new" "$2" "$3" "$4" > "$work/out" 2>&1 || fail "$1"
  did "$1"
}

# command_step NAME NUMBER plain|guarded [STEP..]: its functions are check_NUMBER and apply_NUMBER
command_step() {
  name=$1
  number=$2
  guarded=$3
  shift 3
  stale=no
  for earlier in "$@"; do
    case $changed in
      *" $earlier "*) stale=yes ;;
    esac
  done
  if [ $stale = no ] && "check_$number" > "$work/out" 2>&1; then
    say ok "$name"
    return
  fi
  wanted "$name" || return 0
  before "$name" "$guarded"
  # What takes hours says on 7 now and then that it is at work: nobody hears it, and a run that is gone ends it.
  { "apply_$number" > "$work/out" 2>&1 8>&- 9>&-; } 7>&1 || fail "$name"
  if ! "check_$number" > "$work/again" 2>&1; then
    { echo 'it was done, and is still not so:'; cat "$work/out" "$work/again"; } > "$work/both"
    mv "$work/both" "$work/out"
    fail "$name"
  fi
  did "$name"
}

# look NAME NUMBER: each line of look_NUMBER is a note.
look() {
  if ! "look_$2" > "$work/notes" 2> "$work/out"; then
    wanted "$1" || return 0
    fail "$1"
  fi
  say ok "$1"
  while read -r line; do
    printf 'note\t%s\t%s\n' "$1" "$line"
  done < "$work/notes"
}

# fact NAME NUMBER FACT: fact_NUMBER prints its value.
fact() {
  if ! "fact_$2" > "$work/fact" 2> "$work/out" || [ ! -s "$work/fact" ]; then
    wanted "$1" || return 0
    fail "$1"
  fi
  say ok "$1"
  printf 'fact\t%s\t%s\n' "$3" "$(cat "$work/fact")"
}

# The last guarded change may have been undone after it was made.
finish() {
  in_time "$1"
  [ "$armed" = no ] || end armed
  end 'done'
}
