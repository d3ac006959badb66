# Sourced. What a node in a box needs of the machine, said in one sentence when it is missing (exit status 6).

lacks() { echo "stasis: $1" >&2; exit 6; }

host_check() {
  [ "$(uname -s)" = Linux ] || lacks "a node in a box needs Linux, and this is $(uname -s)"
  [ "$(id -u)" = 0 ] || lacks "a node in a box needs root, because CRIU freezes and rebuilds processes: run it with sudo"
  local tool
  for tool in unshare nsenter mount flock setsid; do
    command -v "$tool" >/dev/null || lacks "a node in a box needs the program $tool (Debian package util-linux)"
  done
  unshare --mount --propagation private --pid --fork --net --uts --ipc --cgroup mount -t tmpfs tmpfs /tmp 2>/dev/null ||
    lacks "this machine does not allow new mount, pid, net, uts, ipc and cgroup namespaces, which a node in a box is made of: use a virtual machine or a privileged container (CAP_SYS_ADMIN)"
  has_filesystem overlay || modprobe -q overlay 2>/dev/null || true
  has_filesystem overlay || lacks "this kernel has no overlayfs (module overlay), on which containers have their root file systems"
}

has_filesystem() { grep -qw "$1" /proc/filesystems; }

# One line per mounted cgroup hierarchy: directory, cgroup or cgroup2, and for version 1 its controllers or name.
cgroup_hierarchies() {
  awk '$3 == "cgroup" || $3 == "cgroup2" {
    n = split($4, option, ","); kept = ""
    for (i = 1; i <= n; i++)
      if (option[i] !~ /^(rw|ro|nosuid|nodev|noexec|(rel|no|lazy)?a?time|xattr|clone_children|nsdelegate|memory_.*|favordynmods|release_agent=.*)$/)
        kept = kept (kept == "" ? "" : ",") option[i]
    if (!seen[$3 kept]++) print $2, $3, kept
  }' /proc/self/mounts
}

# Prints v1 or v2: what was asked for when the machine has it, or else what the machine has.
cgroup_version() { # auto|v1|v2
  local v1= v2=
  while read -r _ type kept; do
    if [ "$type" = cgroup2 ]; then v2=yes; fi
    case ,$kept, in *,freezer,*) v1=yes ;; esac
  done < <(cgroup_hierarchies)
  case $1 in
    auto) if [ -n "$v1" ]; then echo v1; elif [ -n "$v2" ]; then echo v2; else lacks "this machine has no cgroup freezer (neither the version 1 controller nor a cgroup2 mount)"; fi ;;
    v1) [ -n "$v1" ] || lacks "this machine has no cgroup version 1 freezer: leave out --cgroup v1"; echo v1 ;;
    v2) [ -n "$v2" ] || lacks "this machine has no cgroup2 mount: leave out --cgroup v2"; echo v2 ;;
    *) echo "stasis: --cgroup is v1 or v2, not $1" >&2; exit 2 ;;
  esac
}
