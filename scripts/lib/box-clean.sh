# Sourced. box_clean STATE removes everything that a box left on the machine: processes, cgroups, its port on the
# bridge, its data. Safe to run twice. Run as a program, `box-clean.sh STATE` is the janitor of one box: it waits
# for the end of its standard input, which the box holds open, and cleans.

box_clean() { # STATE
  local state=$1 groups=() group left _
  [ -e "$state/cgroups" ] && mapfile -t groups < "$state/cgroups"
  for _ in {1..200}; do
    left=
    for group in "${groups[@]}"; do
      [ -d "$group" ] || continue
      group_kill "$group"
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
      [ ! -d "$group" ] || left=yes
    done
    [ -n "$left" ] || break
    sleep 0.05
  done
  [ ! -e "$state/port" ] || net_leave "$(cat "$state/port")"
  rm -rf --one-file-system "$state"
}

# A frozen process of version 1 dies only when it is thawed; cgroup.kill does not mind.
group_kill() { # GROUP
  if [ -e "$1/cgroup.kill" ]; then echo 1 > "$1/cgroup.kill"; fi 2>/dev/null
  find "$1" -name freezer.state -exec sh -c 'for f; do echo THAWED > "$f"; done' thaw {} + 2>/dev/null
  find "$1" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -KILL 2>/dev/null
}

# Cleans what earlier boxes left whose script and janitor were both killed. The caller holds the lock of all boxes.
box_sweep() {
  local state lock
  for state in "$box_cache"/boxes/*/; do
    [ -e "$state/lock" ] || continue
    exec {lock}< "$state/lock"
    if flock --nonblock "$lock"; then box_clean "${state%/}"; fi
    exec {lock}<&-
  done
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  trap '' INT TERM HUP
  . "$(dirname "$0")/net.sh"
  cat > /dev/null
  box_clean "$1"
fi
