#!/usr/bin/env bash
# Puts the regionwise binaries on the PATH of a workflow's later steps. The set-up actions call it; see action.yml for what
# the SETUP_ variables mean. Nothing is asked of an API, and "latest" is never resolved.
#
# An archive is verified against release/SHA256SUMS beside this script, also when the runner's tool cache has it already:
# the cache holds the archive itself, and the binaries are unpacked anew each time. Ends 0, or 2 with what to change, or
# 12 when a sum differs.
set -euo pipefail
export LC_ALL=C
# What an earlier step may have left to change what cd, tar and curl do.
unset CDPATH TAR_OPTIONS GZIP CURL_HOME
umask 022

REPOSITORY=OWNER/regionwise
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {  # CODE TEXT
  # One line: a line break would end the command.
  printf '::error title=regionwise set-up::%s\n' "${2//$'\n'/ }"
  exit "$1"
}
output() { printf '%s=%s\n' "$1" "$2" >> "$GITHUB_OUTPUT"; }
# Only paths that this script made or verified come here.
on_path() { printf '%s\n' "$1" >> "$GITHUB_PATH"; }
sha256() { if command -v sha256sum > /dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
flag() {  # NAME VALUE: a switch is written true or false, and a misspelt one must not mean either.
  case $2 in
    true | false) ;;
    *) fail 2 "input $1 is neither true nor false" ;;
  esac
}

checksum=${SETUP_CHECKSUM:-true} attest=${SETUP_VERIFY_ATTESTATION:-false}
flag checksum "$checksum"
flag verify-attestation "$attest"
read -r -a tools <<< "${SETUP_TOOLS:-}"
for tool in ${tools[@]+"${tools[@]}"}; do
  [[ $tool =~ ^[a-z][a-z-]*$ ]] || fail 2 'input tools holds a word that is no name of a binary'
done

present() {  # DIRECTORY: every tool that was asked for is there and runs.
  local tool
  for tool in ${tools[@]+"${tools[@]}"}; do
    [ -x "$1/$tool" ] || fail 2 "there is no binary $tool in $2"
  done
}

directory=${SETUP_BIN_DIR:-${REGIONWISE_BIN_DIR:-}}
if [ -n "$directory" ]; then
  [[ $directory != *$'\n'* ]] && [ -d "$directory" ] || fail 2 'bin-dir is no directory on this runner'
  directory=$(cd "$directory" && pwd)
  if [ "$checksum" = true ]; then
    [ -f "$directory/SHA256SUMS" ] || fail 2 'bin-dir has no SHA256SUMS; write it there with: sha256sum -- * > SHA256SUMS, or set checksum to false'
    # Each file of the directory must be listed: an unlisted one would be on the PATH unverified.
    for file in "$directory"/*; do
      name=${file##*/}
      [ "$name" = SHA256SUMS ] || grep -Eq "^[0-9a-f]{64} [ *]$name\$" "$directory/SHA256SUMS" || fail 12 "SHA256SUMS of bin-dir does not list $name"
    done
    (cd "$directory" && sha256 --check --quiet SHA256SUMS) || fail 12 'a binary in bin-dir has another sha256 than SHA256SUMS says; nothing was put on the PATH'
  fi
  present "$directory" bin-dir
  on_path "$directory"
  output version ''
  output bin-dir "$directory"
  output cache-hit false
  exit 0
fi

pinned=unreleased
[ ! -f "$root/release/VERSION" ] || pinned=$(head -n 1 "$root/release/VERSION")
version=${SETUP_VERSION:-$pinned}
version=${version#v}
[ "$version" != unreleased ] || fail 2 'this commit of regionwise pins no release; use the commit of a release, or give bin-dir'
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]] || fail 2 'input version is no exact release, as 1.2.3'
if [ "$version" != "$pinned" ] && [ "$checksum" = true ]; then
  fail 2 "this commit of the action pins $pinned, and has no sha256 of another release; use the action at the commit of the release you want"
fi

case $(uname -s)-$(uname -m) in
  Linux-x86_64) target=x86_64-unknown-linux-musl ;;
  Linux-aarch64 | Linux-arm64) target=aarch64-unknown-linux-musl ;;
  Darwin-x86_64) target=x86_64-apple-darwin ;;
  Darwin-arm64) target=aarch64-apple-darwin ;;
  *) fail 2 "there are no binaries for $(uname -s) on $(uname -m); build them and give bin-dir" ;;
esac
archive=regionwise-$version-$target.tar.gz

from=${SETUP_MIRROR:-https://github.com/$REPOSITORY/releases/download/v$version}
from=${from%/}
case $from in
  /* | https://*) ;;
  *) fail 2 'mirror is neither an https address nor an absolute directory' ;;
esac

expected=''
if [ "$checksum" = true ]; then
  expected=$(sed -n "s/^\([0-9a-f]\{64\}\) [ *]$archive\$/\1/p" "$root/release/SHA256SUMS")
  [ -n "$expected" ] || fail 2 "release/SHA256SUMS has no line for $archive"
fi
matches() { [ -z "$expected" ] || [ "$(sha256 "$1" | cut -d' ' -f1)" = "$expected" ]; }

# Of its own: what an earlier set-up of this job put on the PATH stays.
work=$(mktemp -d "${RUNNER_TEMP:?}/regionwise-XXXXXX")
mkdir "$work/bin"
cached=${RUNNER_TOOL_CACHE:-$RUNNER_TEMP}/regionwise/$version/$archive
hit=false
if [ -f "$cached" ] && [ -n "$expected" ]; then
  if matches "$cached"; then
    hit=true
  else
    echo "the tool cache holds another $archive than this commit pins; fetching it anew"
    rm -f "$cached"
  fi
fi
if [ $hit = false ]; then
  case $from in
    /*) cp "$from/$archive" "$work/$archive" || fail 2 "mirror has no $archive" ;;
    https://*)
      # No token goes along. --location is followed to https only.
      curl --proto '=https' --tlsv1.2 --fail --silent --show-error --location --retry 3 --connect-timeout 10 --max-time 120 \
        --output "$work/$archive" "$from/$archive" || fail 2 "cannot download $archive; is there a way out of this runner? mirror and bin-dir work without"
      ;;
  esac
  matches "$work/$archive" || fail 12 "$archive has another sha256 than this commit pins; nothing was unpacked"
  mkdir -p "${cached%/*}"
  # Whole or not at all: another job of this runner may look.
  mv "$work/$archive" "$cached.$$" && mv "$cached.$$" "$cached"
fi

if [ "$attest" = true ]; then
  command -v gh > /dev/null || fail 2 'verify-attestation needs gh on the runner'
  GH_TOKEN=${SETUP_GITHUB_TOKEN:-} gh attestation verify "$cached" --repo "$REPOSITORY" || fail 12 "gh could not verify where $archive was built"
fi

tar -xzf "$cached" -C "$work" --no-same-owner
# The archive has one directory of its own name; only plain files of it are taken.
found=0
for file in "$work"/*/*; do
  if [ -f "$file" ] && [ ! -L "$file" ] && [ -x "$file" ]; then
    name=${file##*/}
    if [ ${#tools[@]} -gt 0 ] && [[ " ${tools[*]} " != *" $name "* ]]; then continue; fi
    mv "$file" "$work/bin/"
    found=$((found + 1))
  fi
done
[ $found -gt 0 ] || fail 2 "$archive holds no binary"
present "$work/bin" "$archive"
on_path "$work/bin"
output version "$version"
output bin-dir "$work/bin"
output cache-hit $hit
