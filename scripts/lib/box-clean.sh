# Sourced. box_clean STATE removes everything that a box left on the machine: processes, cgroups, its port on the
# bridge, its data. Safe to run twice; call it where a failing command does not end the shell.
#
# Run as a program, `box-clean.sh STATE LOCK` is the janitor of one box: it waits for the death of the script, which
# holds its standard input open, or of the box's process 1, which holds STATE/alive open (a frozen process keeps the
# kernel from ending the box, and so the script from noticing), and cleans. It holds the box's lock, descriptor LOCK.

box_clean() { # STATE
  local state=$1 groups=() group left gone _
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
  # First out of the way: a new box of this name may start at once.
  gone=$(mktemp -d "${state%/*}/.gone-XXXXXX") && mv "$state" "$gone/" && rm -rf --one-file-system "$gone"
}

# A frozen process of version 1 dies only when it is thawed; cgroup.kill does not mind.
group_kill() { # GROUP
  if [ -e "$1/cgroup.kill" ]; then echo 1 > "$1/cgroup.kill"; fi 2>/dev/null
  find "$1" -name freezer.state -exec sh -c 'for f; do echo THAWED > "$f"; done' thaw {} + 2>/dev/null
  # A process that is just going is listed as 0, which for kill is the caller's own group.
  find "$1" -name cgroup.procs -exec cat {} + 2>/dev/null | grep -x '[1-9][0-9]*' | sort -u | xargs -r kill -KILL 2>/dev/null
}

# Cleans what earlier boxes left whose script and janitor were both killed. The caller holds the lock of all boxes.
box_sweep() {
  local state lock
  rm -rf --one-file-system "$box_cache"/boxes/.gone-* 2>/dev/null || true
  for state in "$box_cache"/boxes/*/; do
    [ -e "$state/lock" ] || continue
    exec {lock}< "$state/lock"
    if flock --nonblock "$lock"; then box_clean "${state%/}" || true; fi
    exec {lock}<&-
  done
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  trap '' INT TERM HUP
  . "$(dirname "$0")/net.sh"
  lock=$2
  wait_for_end() { exec {lock}>&-; exec cat > /dev/null; }
  wait_for_end <&0 &
  wait_for_end < "$1/alive" &
  wait -n
  box_clean "$1"
  # Only the one that still waits: the number of the other may belong to somebody else by now.
  kill -KILL $(jobs -pr) 2>/dev/null
fi
