# Sourced. box_root SUITE prints the directory of a root file system made from deploy/image/recipe,
# building it first when the cache has none for this recipe.
box_cache=${STASIS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stasis}

box_packages() { # SUITE
  sed -e '/^#/d' -e '/^suite /d' -e '/^$/d' "$repo/deploy/image/recipe"
}

box_build() { # SUITE DIR
  command -v mmdebstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq mmdebstrap; } >&2 ||
    { echo "stasis: mmdebstrap could not be installed: apt-get failed (see above)" >&2; return 1; }
  local partial=$2.partial.$$ list
  list=$(box_packages "$1" | paste -sd,)
  echo "stasis: making the root file system of the node in a box (Debian $1, once)…" >&2
  # The copy of the archive may be older than the release file's validity.
  mmdebstrap --quiet --aptopt='Acquire::Check-Valid-Until "false"' --variant=minbase --include="$list" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$1" "$partial" >&2 || { rm -rf "$partial"; return 1; }
  # The points where a box mounts what is its own.
  mkdir -p "$partial"/{opt/stasis,oldroot,etc/criu}
  printf 'manage-cgroups ignore\n' > "$partial/etc/criu/crun.conf"
  mv -T "$partial" "$2"
}

box_root() { # SUITE
  local suite=$1 hash dir
  hash=$( (cat "$repo/deploy/image/recipe" "$repo/scripts/lib/box-root.sh"; echo "$suite") | sha256sum | cut -c1-16)
  dir=$box_cache/root-$suite-$hash
  if [ ! -d "$dir" ]; then
    mkdir -p "$box_cache"
    # One builder at a time; the others wait and find it done.
    exec {lock}> "$box_cache/lock-$suite"
    flock "$lock"
    [ -d "$dir" ] || box_build "$suite" "$dir" || return 1
    exec {lock}>&-
  fi
  echo "$dir"
}
