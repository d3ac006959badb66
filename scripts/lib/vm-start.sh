#!/bin/busybox sh
# Process 1 of a virtual machine: from memory, with busybox. Mounts the disk and goes on there with vm-init.sh.
busybox() { /bin/busybox "$@"; }
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox modprobe virtio_blk
# The disk may take a moment to show up.
tries=0
until [ -b /dev/vdb ] || [ $tries = 100 ]; do busybox usleep 50000; tries=$((tries + 1)); done
busybox mount -t ext4 -o noatime /dev/vda /root
busybox mkdir -p /root/usr/lib/modules /root/opt/stasis
busybox mount -t tmpfs tmpfs /root/usr/lib/modules
busybox cp -a /lib/modules/. /root/usr/lib/modules/
busybox cp /bin/busybox /root/usr/lib/modules/busybox
busybox cp /command /root/usr/lib/modules/command
busybox tar -xf /dev/vdb -C /root/opt/stasis
for dir in proc sys dev; do busybox mount --move /$dir /root/$dir; done
exec /bin/busybox switch_root /root /bin/bash /opt/stasis/scripts/lib/vm-init.sh
