# Runs in a box: starts the agent, waits until it answers, runs the command, stops the agent. With --s3 before the command
# the agent's repository is in a bucket of an S3 server that is started for it.
set -euo pipefail
log=/var/log/stasis-agent.log

if [ "${1:-}" = --s3 ]; then
  shift
  node /opt/stasis/dist/test/demo/s3-server.js /run/demo-s3.env &
  server=$!
  for _ in {1..300}; do
    if [ -e /run/demo-s3.env ]; then break; fi
    kill -0 "$server" 2>/dev/null || { echo "stasis: the S3 server ended while it started" >&2; exit 4; }
    sleep 0.1
  done
  . /run/demo-s3.env
fi

stasis-agent > "$log" 2>&1 &
agent=$!
give_up() {
  echo "stasis: the agent $1; its log:" >&2
  tail -n 20 "$log" | sed 's/^/  | /' >&2
  exit 4
}
for _ in {1..300}; do
  if stasis node --json > /dev/null 2>&1; then break; fi
  kill -0 "$agent" 2>/dev/null || give_up "ended while it started"
  sleep 0.05
done
stasis node --json > /dev/null 2>&1 || give_up "did not answer within its first 15 seconds"

export STASIS_AGENT_PID=$agent STASIS_AGENT_LOG=$log
status=0
"$@" || status=$?
kill -TERM "$agent" 2>/dev/null && wait "$agent" || true
if [ -n "${server:-}" ]; then kill -TERM "$server" 2>/dev/null && wait "$server" || true; fi
exit "$status"
