# Process 1 of a node in a box, in its new namespaces; the BOX_ variables come from scripts/box. Builds the mounts,
# pivots into them, runs the command and collects orphans until it ends.
set -euo pipefail
repo=$BOX_REPO
. "$repo/scripts/lib/host.sh"
. "$repo/scripts/lib/net.sh"

# The janitor sees the end of process 1 by this.
exec {alive}> "$BOX_DATA/../alive"

own() { # MODE DIR…: directories of the box's own, on disk
  local mode=$1 dir
  shift
  for dir; do
    mkdir -p -m "$mode" "$BOX_DATA/$dir"
    mount --bind "$BOX_DATA/$dir" "$dir"
  done
}

mount_files() {
  cp -a etc "$BOX_DATA/etc"
  own 755 etc home srv var/cache var/lib var/log
  own 700 root
  own 1777 var/tmp
  mount -t tmpfs -o mode=755 tmpfs run
  mount -t tmpfs -o mode=1777 tmpfs tmp
  mount --bind "$BOX_REPO" opt/stasis
  if [ -n "$BOX_SHARE" ]; then
    mount --bind "$BOX_SHARE" mnt
    mount -o remount,bind,ro mnt
  fi
}

mount_kernel() {
  mount -t proc proc proc
  mount -t sysfs sysfs sys
  mount --bind /dev dev
  mount --bind /dev/pts dev/pts
  mount -t tmpfs -o mode=1777 tmpfs dev/shm
  if [ -d dev/mqueue ]; then mount -t mqueue mqueue dev/mqueue; fi
}

mount_cgroups_v1() {
  local directory type kept name
  mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
  while read -r directory type kept; do
    [ "$type" = cgroup ] || continue
    name=${directory##*/}
    mkdir -p "sys/fs/cgroup/$name"
    mount -t cgroup -o "${kept/name=/none,name=}" cgroup "sys/fs/cgroup/$name"
    # "cpu,cpuacct" is also found as "cpu" and as "cpuacct".
    case $name in *,*) for directory in ${name//,/ }; do ln -s "$name" "sys/fs/cgroup/$directory"; done ;; esac
  done <<< "$BOX_HIERARCHIES"
}

mount_cgroups_v2() {
  local controller
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  # A cgroup that has processes cannot hand controllers down: this one makes room.
  mkdir -p sys/fs/cgroup/init
  echo 1 > sys/fs/cgroup/init/cgroup.procs
  for controller in $(cat sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > sys/fs/cgroup/cgroup.subtree_control
  done 2>/dev/null || true
}

mount --bind "$BOX_ROOT" "$BOX_ROOT"
cd "$BOX_ROOT"
mount_kernel
mount_files
"mount_cgroups_$BOX_CGROUP"
chroot . /usr/sbin/ip link set lo up
if [ -n "$BOX_ADDRESS" ]; then net_join "$BOX_ADDRESS"; fi
hostname "$BOX_NAME"
printf '127.0.0.1 localhost %s\n' "$BOX_NAME" > etc/hosts
# The cached root is shared by all boxes.
mount -o remount,bind,ro .
pivot_root . oldroot
cd /
umount -l /oldroot

ulimit -n "$(ulimit -Hn)"
unset "${!BOX_@}" "${!XDG_@}" "${!SUDO_@}" NODE_OPTIONS NODE_PATH BASH_ENV DBUS_SESSION_BUS_ADDRESS repo
export PATH=/opt/stasis/deploy/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 PODMAN_IGNORE_CGROUPSV1_WARNING=1
# Not exec: process 1 must be one that waits for orphans, or they stay as zombies.
status=0
"$@" {alive}>&- || status=$?
exit "$status"
