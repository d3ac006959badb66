# Sourced by scripts/vm, after host.sh and root.sh: what a virtual machine is started from, cached beside the roots.

# The kernel of Debian's SUITE that is made for virtual machines, with its modules unpacked and busybox for the start.
vm_kernel() { # SUITE
  local suite=$1 dir version
  dir=$box_cache/kernel-$suite-$(sha256sum < "$repo/scripts/lib/vm.sh" | cut -c1-16)
  if [ ! -d "$dir" ]; then
    echo "stasis: fetching a kernel of Debian $suite, once, about 15 seconds…" >&2
    command -v mmdebstrap >/dev/null || lacks "mmdebstrap is needed to fetch a kernel (Debian package mmdebstrap)"
    rm -rf "$dir.partial"
    mkdir "$dir.partial"
    mmdebstrap --mode=root --variant=extract --include="linux-image-cloud-amd64,busybox-static" \
      --aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$dir.partial/packages" >"$dir.log" 2>&1 </dev/null ||
      { tail -n 15 "$dir.log" | sed 's/^/  | /' >&2; lacks "the kernel of Debian $suite could not be fetched (see above)"; }
    version=$(ls "$dir.partial/packages/usr/lib/modules")
    # The kernel lies in /boot or, lately, beside its modules.
    cp "$(find "$dir.partial/packages" -type f -name 'vmlinuz*' -print -quit)" "$dir.partial/vmlinuz"
    mkdir -p "$dir.partial/start"/{bin,lib/modules,proc,sys,dev,root}
    cp -a "$dir.partial/packages/usr/lib/modules/$version" "$dir.partial/start/lib/modules/"
    rm -rf "$dir.partial/start/lib/modules/$version"/{vmlinuz,build,source,System.map,config,kernel/drivers/{gpu,infiniband,media,scsi}}
    find "$dir.partial/start/lib/modules" -name '*.ko.xz' -exec xz -d {} +
    cp "$(find "$dir.partial/packages" -type f -path '*bin/busybox' -print -quit)" "$dir.partial/start/bin/busybox"
    "$dir.partial/start/bin/busybox" depmod -b "$dir.partial/start" "$version"
    rm -rf "$dir.partial/packages" "$dir.log"
    mv -T "$dir.partial" "$dir"
  fi
  printf '%s\n' "$dir"
}

# The root file system of the node in a box as a disk. Virtual machines write to copies of it that are gone at the end.
vm_disk() { # SUITE
  local root disk
  root=$(box_root "$1") || return
  disk=$box_cache/disk-${root##*/root-}.ext4
  if [ ! -e "$disk" ]; then
    rm -f "$disk.partial"
    mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$root" "$disk.partial" 16G >&2
    mv -T "$disk.partial" "$disk"
  fi
  printf '%s\n' "$disk"
}
