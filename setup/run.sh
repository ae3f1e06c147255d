#!/usr/bin/env bash
# Becomes a regionwise binary, for the actions below actions/: run.sh BINARY [VERB]. Inputs arrive as REGIONWISE_ variables;
# an input that was left empty is one that was not given.
set -euo pipefail
for name in "${!REGIONWISE_@}"; do
  [ -n "${!name}" ] || unset "$name"
done
# On the PATH of later steps only: within one action the set-up step's own output says where they are.
PATH=${SETUP_FOUND:+$SETUP_FOUND:}$PATH
exec "$@"
