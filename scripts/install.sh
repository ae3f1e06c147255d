#!/bin/sh
# Installs one release of regionwise for the user who runs it. Needs no root, asks nothing, touches one directory.
#
#   install.sh --version VERSION [--to DIR] [--tools "NAME .."] [--sha256 HEX] [--mirror URL|DIR] [--target TARGET]
#
#   --version   the release, for example 0.1.0; there is no "latest": what runs in production is chosen
#   --to        where the binaries go; default ~/.local/bin
#   --tools     only these binaries; default all of the archive
#   --sha256    the archive's sum, from release/SHA256SUMS of the tagged commit. Without it the sum comes from where the
#               archive comes from: that finds a broken download, and not a mirror that lies
#   --mirror    where the archive is instead of the release on GitHub; a directory works, plain http needs --sha256. Also
#               REGIONWISE_MIRROR
#   --target    instead of this machine's
#
# Ends 0 when every binary is there, 2 for usage, 1 else; then nothing was installed.
set -eu

releases=https://github.com/OWNER/regionwise/releases/download

main() {
  version='' to=${HOME:+$HOME/.local/bin} tools='' sha256='' mirror=${REGIONWISE_MIRROR:-} target=''
  while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage "$1 needs a value"
    case $1 in
      --version) version=${2#v} ;;
      --to) to=$2 ;;
      --tools) tools=$2 ;;
      --sha256) sha256=$2; [ -n "$sha256" ] || usage '--sha256 is empty' ;;
      --mirror) mirror=$2 ;;
      --target) target=$2 ;;
      *) usage "unknown word $1" ;;
    esac
    shift 2
  done
  [ -n "$version" ] || usage '--version is missing'
  case $version in *[!0-9A-Za-z.+-]*) usage "$version is not a version" ;; esac
  mirror=${mirror:-$releases/v$version} mirror=${mirror%/}
  [ -n "$to" ] || usage '--to is missing, and HOME is not set'
  case $mirror in
    http://*) [ -n "$sha256" ] || usage "over plain http anybody can change $mirror on the way: give --sha256" ;;
  esac
  [ -n "$target" ] || target=$(this_machine)

  folder=regionwise-$version-$target
  archive=$folder.tar.gz
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM

  fetch "$archive"
  if [ -z "$sha256" ]; then
    fetch SHA256SUMS
    sha256=$(awk -v name="$archive" '$2 == name { print $1 }' "$work/SHA256SUMS")
    [ -n "$sha256" ] || fail "SHA256SUMS of $mirror does not name $archive" 'there is no such release, or not for this target'
  fi
  found=$(sum "$work/$archive")
  [ "$found" = "$sha256" ] || fail "$archive has the sum $found, and not $sha256" \
    'nothing was installed; try again, and if it stays, tell the project and do not run it'

  tar -xzf "$work/$archive" -C "$work"
  [ -n "$tools" ] || tools=$(cd "$work/$folder" && for file in *; do [ ! -x "$file" ] || echo "$file"; done)
  for tool in $tools; do
    case $tool in */* | .*) usage "$tool is not the name of a binary" ;; esac
    [ -x "$work/$folder/$tool" ] || fail "there is no $tool in $archive" "it has: $(cd "$work/$folder" && echo *)"
  done
  mkdir -p "$to"
  # All of them or none: what can fail for want of room comes first. A rename within the directory also replaces one that runs.
  for tool in $tools; do
    cp "$work/$folder/$tool" "$to/.$tool.new" || {
      for copied in $tools; do rm -f "$to/.$copied.new"; done
      fail "cannot write into $to" 'nothing was installed; is there room, and may you write there?'
    }
  done
  for tool in $tools; do mv -f "$to/.$tool.new" "$to/$tool"; done
  # shellcheck disable=SC2086 # one word per binary
  printf 'regionwise %s (%s, sha256 %s) is in %s:\n' "$version" "$target" "$sha256" "$to" && printf '  %s\n' $tools
  case :$PATH: in
    *:"$to":*) ;;
    *) printf '%s is not in your PATH\n' "$to" ;;
  esac
}

usage() {
  printf 'error: %s\n' "$1" >&2
  printf 'usage: install.sh --version VERSION [--to DIR] [--tools "NAME .."] [--sha256 HEX] [--mirror URL|DIR] [--target TARGET]\n' >&2
  exit 2
}

fail() {
  printf 'error: %s\n  hint: %s\n' "$1" "$2" >&2
  exit 1
}

this_machine() {
  case $(uname -s)/$(uname -m) in
    Linux/x86_64 | Linux/amd64) echo x86_64-unknown-linux-musl ;;
    Linux/aarch64 | Linux/arm64) echo aarch64-unknown-linux-musl ;;
    Darwin/arm64) echo aarch64-apple-darwin ;;
    Darwin/x86_64) echo x86_64-apple-darwin ;;
    *) fail "there is no release for $(uname -s) on $(uname -m)" 'cargo build --release makes the binaries from source' ;;
  esac
}

# fetch NAME: a file of the release into the working directory.
fetch() {
  case $mirror in
    https://*) only='=https' ;;
    http://*) only='=http,https' ;;
    *)
      [ -f "$mirror/$1" ] || fail "cannot read $mirror/$1" 'a mirror has the archives and SHA256SUMS'
      cp "$mirror/$1" "$work/$1"
      return ;;
  esac
  command -v curl > /dev/null || fail 'curl is not installed' 'install curl, or give a directory with --mirror'
  # Redirects stay within the same protocols; a transfer that stalls ends, and one that broke is tried again.
  curl --proto "$only" --proto-redir "$only" --tlsv1.2 --fail --location --silent --show-error --retry 3 --connect-timeout 10 \
    --speed-limit 1000 --speed-time 30 --output "$work/$1" "$mirror/$1" ||
    fail "cannot fetch $mirror/$1" 'is the version right, and can this machine reach it?'
}

sum() {
  if command -v sha256sum > /dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

# Called at the very end: of a script that arrives by a pipe and is cut off, nothing runs.
main "$@"
