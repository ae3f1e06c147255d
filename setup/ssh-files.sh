#!/usr/bin/env bash
# Writes the ssh key and the pinned host keys that secrets hold into files of mode 0600, where regions.toml expects them.
#
#   ssh-files.sh write     SSH_KEY at SSH_KEY_PATH, SSH_KNOWN_HOSTS at SSH_KNOWN_HOSTS_PATH; an empty one is not written
#   ssh-files.sh remove    every file that `write` made for the same action in this job
#
# Relative paths are relative to the directory of regions.toml (REGIONWISE_CONFIG), ~/ is the home directory.
set -euo pipefail
export LC_ALL=C
umask 077
# What one action wrote, another does not remove: ssh-files is for the whole job, the others for their own step.
list=${RUNNER_TEMP:?}/regionwise-ssh-files
caller=${GITHUB_ACTION_PATH:-ssh-files}
caller=${caller%/} caller=${caller##*/}
[ "$caller" = ssh-files ] || list+=-$caller
written=()

remove() {
  [ -f "$list" ] || return 0
  local file
  while IFS= read -r file; do rm -f -- "$file"; done < "$list"
  rm -f -- "$list"
}
# Of a write that was refused half way: its own files alone.
undo() { [ $? = 0 ] || rm -f -- ${written[@]+"${written[@]}"}; }

keep() {  # WHAT TEXT PATH
  local text=$2 path=$3
  [ -n "$text" ] || return 0
  [ -n "$path" ] || { echo "::error title=regionwise::no path is given for the $1"; exit 2; }
  # No tilde expansion: the path is data.
  local home=\~/
  case $path in
    "$home"*) path=$HOME/${path#"$home"} ;;
    /*) ;;
    *) path=$(dirname -- "${REGIONWISE_CONFIG:-regions.toml}")/$path ;;
  esac
  if [ -e "$path" ]; then
    # Two truths: neither is silently the one.
    echo "::error title=regionwise::$path is there already, and a secret holds the $1 too: remove one of the two (it may be left over from a job that was killed)"
    exit 2
  fi
  mkdir -p -- "$(dirname -- "$path")"
  # Written down before it is there: what comes in between removes nothing that is not there.
  printf '%s\n' "$path" >> "$list"
  written+=("$path")
  # As pasted into a browser: carriage returns, and no line break at the end.
  printf '%s\n' "${text//$'\r'/}" > "$path"
}

case ${1:-} in
  write)
    trap undo EXIT
    keep 'ssh key' "${SSH_KEY:-}" "${SSH_KEY_PATH:-}"
    keep 'pinned host keys' "${SSH_KNOWN_HOSTS:-}" "${SSH_KNOWN_HOSTS_PATH:-}"
    ;;
  remove) remove ;;
  *) echo 'usage: ssh-files.sh write|remove' >&2; exit 2 ;;
esac
