# Process 1 of a virtual machine, on its disk. Makes it what a node in a box is, runs the command, hands out its exit
# status and switches off.
set -uo pipefail
export PATH=/opt/stasis/deploy/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
busybox=/usr/lib/modules/busybox

prepare() {
  mkdir -p /dev/pts /dev/shm /dev/mqueue
  mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  mount -t mqueue mqueue /dev/mqueue
  mount -t tmpfs -o mode=755 tmpfs /run
  mount -t tmpfs -o mode=1777 tmpfs /tmp
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  # A cgroup that has processes cannot hand controllers down: this one makes room.
  mkdir /sys/fs/cgroup/init
  echo 1 > /sys/fs/cgroup/init/cgroup.procs
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control; done
  # The kernel asks for modules by this name.
  printf '#!/bin/sh\nexec %s modprobe "$@"\n' "$busybox" > /run/modprobe
  chmod 755 /run/modprobe
  echo /run/modprobe > /proc/sys/kernel/modprobe
  for module in overlay unix_diag inet_diag tcp_diag udp_diag raw_diag netlink_diag af_packet_diag veth bridge nf_tables tun; do "$busybox" modprobe -q "$module"; done
  ip link set lo up
  hostname vm
  printf '127.0.0.1 localhost vm\n' > /etc/hosts
  ln -sf /proc/self/fd /dev/fd
  ulimit -n "$(ulimit -Hn)"
}

stty -F /dev/hvc0 raw -echo
prepare > /dev/console 2>&1
export HOME=/root LANG=C.UTF-8
cd /root
# In a session of its own: process 1 waits for orphans.
status=0
setsid bash /usr/lib/modules/command < /dev/null > /dev/hvc0 2>&1 || status=$?
stty -F /dev/hvc0 drain 2>/dev/null
echo "$status" > /dev/vport0p1
sync
"$busybox" poweroff -f
