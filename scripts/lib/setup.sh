# Sourced. stasis_setup makes the clone ready to run: node_modules as the lock file says, dist as the sources say.
# Concurrent runs wait for each other and find it done.

stasis_setup() {
  local lock major
  command -v node >/dev/null && command -v npm >/dev/null || lacks "Node.js 20 or newer and npm are needed to build Stasis: install them (Debian packages nodejs and npm)"
  major=$(node -p 'process.versions.node.split(".")[0]')
  [ "$major" -ge 20 ] || lacks "Node.js 20 or newer is needed to build Stasis, and this is $(node --version)"
  mkdir -p "$repo/.cache"
  exec {lock}> "$repo/.cache/setup.lock"
  flock "$lock"
  if [ ! -e "$repo/node_modules/.package-lock.json" ] || [ "$repo/package-lock.json" -nt "$repo/node_modules/.package-lock.json" ]; then
    echo "stasis: installing what package-lock.json names (npm ci)…" >&2
    (cd "$repo" && npm ci --no-audit --no-fund --loglevel=error) {lock}>&- >&2 || lacks "npm ci failed (see above): check that this machine reaches its npm registry, then run this again"
    # npm keeps the times of what it unpacked; the next run compares with this one.
    touch "$repo/node_modules/.package-lock.json"
  fi
  if build_is_stale; then "$repo/scripts/build" {lock}>&- || { echo "stasis: the build failed (see above)" >&2; exit 1; }; fi
  exec {lock}>&-
}

# A removed file changes the time of its directory.
build_is_stale() {
  [ ! -e "$repo/dist/.built" ] ||
    [ -n "$(cd "$repo" && find src test proto scripts/build tsconfig.json package.json package-lock.json -newer dist/.built -print -quit)" ]
}
