# Runs as process 1 of a node in a box, inside the new namespaces; $BOX_ROOT, $BOX_DATA, $BOX_REPO, $BOX_NAME, $BOX_CGROUP
# are set. Builds the mounts, pivots, and becomes the command.
set -e
mount --bind "$BOX_ROOT" "$BOX_ROOT"
cd "$BOX_ROOT"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
for d in var/lib srv root; do
  mkdir -p "$BOX_DATA/$d"
  mount --bind "$BOX_DATA/$d" "$d"
done
mount --bind "$BOX_REPO" opt/stasis
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
if [ "$BOX_CGROUP" = v2 ]; then
  umount sys/fs/cgroup
  mount -t cgroup2 cgroup2 sys/fs/cgroup
else
  for c in cpu cpuacct cpuset memory devices freezer blkio pids; do
    mkdir "sys/fs/cgroup/$c"
    mount -t cgroup -o "$c" cgroup "sys/fs/cgroup/$c"
  done
  mkdir sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
pivot_root . oldroot
cd /
umount -l /oldroot
ip link set lo up
hostname "$BOX_NAME"
ulimit -n "$(ulimit -Hn)"
export PATH=/opt/stasis/deploy/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
exec "$@"
