# Runs a command in a box that is there: enter-box.sh NAME PID COMMAND…; PID is a process in it, as this machine sees it.
set -euo pipefail
. "$(dirname "$0")/root.sh"
name=$1 pid=$2
shift 2
while read -r group; do
  # With cgroup version 2 process 1 has made room for the others (box-init.sh).
  if [ -e "$group/init" ]; then group=$group/init; fi
  echo "$$" > "$group/cgroup.procs"
done < "$box_cache/boxes/stasis-box-$name/cgroups"
ulimit -n "$(ulimit -Hn)"
mapfile -d '' -t environment < "/proc/$pid/environ"
exec nsenter -t "$pid" -m -u -i -n -p -C -r -w env -i "${environment[@]}" "$@"
