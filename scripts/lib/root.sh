# Sourced. box_root SUITE prints the directory of a cached root file system, made first when the cache has none
# for this recipe. Sets box_cache, where everything lies that scripts keep between runs.
box_cache=${STASIS_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/stasis}

box_root() { # SUITE
  local suite=$1 hash dir lock
  hash=$(cat "$repo"/deploy/image/{packages,make-root} | sha256sum | cut -c1-16)
  dir=$box_cache/root-$suite-$hash
  if [ ! -d "$dir" ]; then
    mkdir -p "$box_cache"
    # One maker at a time; the others wait and find it done.
    exec {lock}> "$box_cache/lock-root-$suite"
    flock "$lock"
    if [ ! -d "$dir" ]; then
      # Left over: what a killed maker made, and roots of recipes that nobody used for two weeks.
      rm -rf "$box_cache/root-$suite-"*.partial.*
      find "$box_cache" -maxdepth 1 -name 'root-*' -mtime +14 -exec rm -rf {} +
      echo "stasis: making the root file system of the node in a box: Debian $suite, once, about a minute…" >&2
      "$repo/deploy/image/make-root" "$suite" box "$dir" {lock}>&- || return
    fi
    exec {lock}>&-
  fi
  touch "$dir"
  printf '%s\n' "$dir"
}
