# Sourced. Boxes with an address meet on a bridge in a network namespace of their own, so that nothing appears
# in the machine's. The namespace is kept by a bind mount on $net_dir/ns from the first such box to the last.
net_dir=/run/stasis-boxes

# Runs as process 1 of a box, before the pivot, in the root file system's directory. The address is the port's name:
# it can be taken only once.
net_join() { # ADDRESS/PREFIX
  local lock
  mkdir -p "$net_dir"
  exec {lock}> "$net_dir/lock"
  flock "$lock"
  nsenter --net="$net_dir/ns" chroot . /usr/sbin/ip link add "${1%/*}" type veth peer name eth0 netns 1 2>/dev/null ||
    { echo "stasis: the address ${1%/*} is taken by another box" >&2; exit 2; }
  nsenter --net="$net_dir/ns" chroot . /usr/sbin/ip link set "${1%/*}" master boxes up
  exec {lock}>&-
  chroot . /usr/sbin/ip address add "$1" dev eth0
  chroot . /usr/sbin/ip link set eth0 up
}

# Runs on the machine, before the box starts.
net_prepare() { # ROOT USER
  local lock
  mkdir -p "$net_dir"
  exec {lock}> "$net_dir/lock"
  flock "$lock"
  if ! grep -q " $net_dir/ns " /proc/self/mountinfo; then
    touch "$net_dir/ns"
    unshare --net="$net_dir/ns" chroot "$1" /usr/sbin/ip link add boxes type bridge || lacks "this kernel has no network bridges, which boxes with an address need"
    nsenter --net="$net_dir/ns" chroot "$1" /usr/sbin/ip link set boxes up
  fi
  # A user that has not joined yet is counted, so that the last one of others to leave does not close the door.
  touch "$net_dir/user-$2"
  exec {lock}>&-
}

net_leave() { # USER
  local lock
  exec {lock}> "$net_dir/lock" || return 0
  flock "$lock"
  rm -f "$net_dir/user-$1"
  if ! compgen -G "$net_dir/user-*" > /dev/null; then
    umount "$net_dir/ns" 2>/dev/null
    rm -f "$net_dir/ns"
  fi
  exec {lock}>&-
}
