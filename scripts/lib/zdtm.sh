#!/usr/bin/env bash
# CRIU's own functional tests, each as a process of a container of its own, saved and brought back by Stasis: scripts/test --suite zdtm
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
. "$repo/scripts/lib/host.sh"
. "$repo/scripts/lib/setup.sh"

usage() {
  cat <<'END'
usage: STASIS_ZDTM=DIR scripts/test --suite zdtm [option…] [PROGRAM…]
  --by stasis,plain,none         through Stasis, by the runtime alone, not at all (default: stasis,plain)
  --runtime runc,crun            (default: runc)
  --memory eager,lazy            how it is restored by Stasis (default: eager; crun restores eagerly only)
  --mode stop,leave-running      how it is saved by Stasis (default: stop)
  --jobs N                       containers side by side (default: 2)
  --resume                       go on where an earlier run with the same options was broken off
  --name NAME                    of the box
DIR holds what was built from CRIU's test/zdtm/static, which is no part of Stasis:
  bin/    the programs
  *.so.*  libraries that they need and a container does not have
  list    one line a program, separated by tabs: name, its own arguments, and from its .desc file: flags, options, flavor
Prints one row a program, a summary, what is otherwise than test/zdtm/expectations.ts says, and "N passed, N failed".
END
}

name=zdtm$$ options=()
while [ $# -gt 0 ]; do
  case $1 in
    --help|-h) usage; exit 0 ;;
    --name) name=${2:?--name needs a value}; shift 2 ;;
    --resume) options+=("$1"); shift ;;
    --by|--runtime|--memory|--mode|--jobs) options+=("$1" "${2:?$1 needs a value}"); shift 2 ;;
    -*) echo "stasis: unknown option $1" >&2; usage >&2; exit 2 ;;
    *) options+=("$1"); shift ;;
  esac
done
if [ -z "${STASIS_ZDTM:-}" ]; then
  echo "skipped: STASIS_ZDTM does not name a directory of CRIU's built test programs (scripts/test --suite zdtm --help)"
  echo "0 passed, 0 failed"
  exit 0
fi
if [ ! -e "$STASIS_ZDTM/list" ]; then echo "stasis: there is no list in $STASIS_ZDTM" >&2; exit 2; fi
host_check
stasis_setup
exec env -u STASIS_ZDTM "$repo/scripts/box" --name "$name" --share "$STASIS_ZDTM" -- node /opt/stasis/dist/test/zdtm/main.js "${options[@]}"
