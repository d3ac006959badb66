# Runs in a box: starts the agent, waits until it answers, runs the command, stops the agent.
set -euo pipefail
log=/var/log/stasis-agent.log

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
exit "$status"
