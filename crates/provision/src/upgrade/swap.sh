#!/bin/sh
# Made by provision-region. Puts another region-host in the place of the one that is there, which is kept beside it.
#
#   script upgrade SHA256 DIRECTORY    the new one lies in the directory
#   script back                        the kept one serves again, and the other one is kept; again: nothing
#   script undo                        the kept one serves again, and the other one goes
#
# The only line is a word and what there is to say, with a tab.
#
# For the steps that make a host, which hold their lock already; they end with a status:
#
#   script so SHA256                   it is there, or somebody went back from it
#   script place SHA256 DIRECTORY      as upgrade, also where none is yet
#   script notes SHA256                that somebody went back from it
set -u
umask 022
export LC_ALL=C
here=/usr/local/bin/region-host
kept=$here.previous
new=$here.new
# sha256 of the one that was left last: going back twice must not lead forwards.
left=$here.left

say() {
  printf '%s\t%s\n' "$1" "$2"
  exit 0
}

# Also what a program for another machine says, which is the shell's word.
version() {
  "$1" --version 2>&1 | tail -n 3 | tr -s '\n\t' '  ' | cut -c 1-400
}

runs() {
  "$1" --version > /dev/null 2>&1
}

sum() {
  sha256sum < "$1" | cut -d ' ' -f 1
}

has_sum() {
  [ "$(sum "$1")" = "$2" ]
}

arrived() {
  cp "$1" "$new" && chmod 755 "$new" && has_sum "$new" "$2"
}

# Whoever loses power in between has one of both, whole.
put() {
  rm -f "$left" && cp -p "$here" "$kept.new" && mv -f "$kept.new" "$kept" && sync && mv -f "$new" "$here" && sync
}

swap() {
  sum "$here" > "$left" && cp -p "$here" "$new" && mv -f "$kept" "$here" && mv -f "$new" "$kept" && sync
}

undo() {
  mv -f "$kept" "$here" && sync
}

or_failed() {
  "$1" || say failed 'the disk does not take it'
}

# An upgrade that was taken back is not made again by a run that is about something else.
was_left() {
  [ -x "$here" ] && [ "$(cat "$left" 2> /dev/null)" = "$1" ] && ! has_sum "$here" "$1"
}

is_so() {
  [ "$(stat -c '%a %U:%G' "$here" 2> /dev/null)" = '755 root:root' ] && { has_sum "$here" "$1" || was_left "$1"; }
}

die() {
  echo "$1"
  exit 1
}

place() {
  if was_left "$1"; then
    chown root:root "$here" && chmod 755 "$here"
    return
  fi
  # When only mode or owner differ, it need not come again.
  source=$2/region-host
  [ -f "$source" ] || source=$here
  if ! arrived "$source" "$1" || ! chown root:root "$new"; then
    rm -f "$new"
    die "$source is not what was sent"
  fi
  if ! runs "$new"; then
    said=$(version "$new")
    rm -f "$new"
    die "this region-host does not run here: build it for this architecture and a libc that is not newer: $said"
  fi
  if [ -x "$here" ] && ! has_sum "$here" "$1"; then put; else mv -f "$new" "$here" && sync; fi
}

case $1 in
  so)
    is_so "$2"
    exit
    ;;
  place)
    place "$2" "$3"
    exit
    ;;
  notes)
    ! was_left "$2" || echo "somebody went back from this run's region-host, and it stays so: provision-region upgrade puts it there again"
    exit
    ;;
esac

exec 9> /run/regionwise-steps.lock
flock -n 9 || say busy 'another run is setting this server up'
[ -x "$here" ] || say absent ''
case $1 in
  upgrade)
    if has_sum "$here" "$2"; then say same "$(version "$here")"; fi
    if ! arrived "$3/region-host" "$2"; then
      rm -f "$new"
      say failed 'what was sent did not arrive'
    fi
    if ! runs "$new"; then
      said=$(version "$new")
      rm -f "$new"
      say broken "$said"
    fi
    or_failed put
    say upgraded "$(version "$here")"
    ;;
  back)
    # Cut off between its two moves.
    if [ ! -e "$kept" ] && [ -e "$new" ] && [ -e "$left" ]; then mv -f "$new" "$kept"; fi
    if [ -e "$left" ] && [ -x "$kept" ] && has_sum "$kept" "$(cat "$left")"; then say same "$(version "$here")"; fi
    [ -x "$kept" ] || say nothing-kept ''
    runs "$kept" || say broken "$(version "$kept")"
    or_failed swap
    say back "$(version "$here")"
    ;;
  undo)
    or_failed undo
    say undone "$(version "$here")"
    ;;
esac
