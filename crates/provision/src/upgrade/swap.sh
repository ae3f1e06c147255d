#!/bin/sh
# Made by provision-region. Puts another region-host in the place of the one that is there, which is kept beside it.
#
#   script upgrade SHA256 DIRECTORY    the new one lies in the directory
#   script back                        the kept one serves again, and the other one is kept; again: nothing
#   script undo                        the kept one serves again, and the other one goes
#
# The only line is a word and what there is to say, with a tab.
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
