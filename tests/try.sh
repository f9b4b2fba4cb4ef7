#!/usr/bin/env bash
# Builds Lampad and runs it here, on loopback: a collector and this host's agent, which finds MySQL or MariaDB by itself.
#
#   tests/try.sh [further arguments of lampad-agent]
#
# Data is kept under target/try. Ctrl-C ends both.
set -euo pipefail
cd "$(dirname "$0")/.."

http=${LAMPAD_TRY_HTTP:-127.0.0.1:9390}
grpc=${LAMPAD_TRY_GRPC:-127.0.0.1:9391}
dir=target/try
wait_seconds=60

tests/install.sh build
cargo build --release -p lampad-collector -p lampad-agent
mkdir -p $dir

# The collector ends after the agent, so that nothing is sent to a closed door.
stop() {
    trap - EXIT INT TERM
    for pid in ${agent:-} ${collector:-}; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    echo "Ended. Data stays in $dir; remove it to begin anew."
}
trap 'stop; exit 0' INT TERM
trap stop EXIT

# In process groups of their own, so that Ctrl-C reaches this script only and the order above holds.
set -m
target/release/lampad-collector --data-dir $dir/data --http-listen "$http" --grpc-listen "$grpc" >$dir/collector.log 2>&1 &
collector=$!
target/release/lampad-agent --collector "http://$grpc" --state-dir $dir/state "$@" >$dir/agent.log 2>&1 &
agent=$!
set +m

ask() { curl -fsS -m 5 "http://$http/api/v1/query" --data-urlencode "query=$1" -G 2>/dev/null; }

echo "Waiting for the first samples ..."
for ((i = 0; ; i++)); do
    for part in collector agent; do
        if ! kill -0 "${!part}" 2>/dev/null; then
            echo "The $part ended at once; $dir/$part.log says why:" >&2
            tail -n 5 $dir/$part.log >&2
            exit 1
        fi
    done
    ask 'up == 1' | grep -q '"value"' && ask 'node_load1' | grep -q '"value"' && break
    if ((i >= wait_seconds * 5)); then
        echo "No samples within $wait_seconds s; see $dir/collector.log and $dir/agent.log" >&2
        exit 1
    fi
    sleep 0.2
done

cat <<TEXT

Lampad runs. Open
    http://$http/            who pushes, and what it says
    http://$http/metrics     every current series, as Prometheus would scrape it
    http://$http/api/v1/targets
and try
    curl -sG http://$http/api/v1/query --data-urlencode 'query=rate(node_cpu_seconds_total{mode="user"}[5s])'
TEXT
if ask 'mysql_up == 1' | grep -q '"value"'; then
    echo "    curl -sG http://$http/api/v1/query --data-urlencode 'query=mysql_global_status_threads_connected'"
else
    echo "No MySQL or MariaDB lets the agent in; 'target/release/lampad-agent check' says what to do."
fi
echo
echo "Logs: $dir/*.log. Ctrl-C ends both."
wait -n "$agent" "$collector" || true
echo "One of the two has ended; see $dir/*.log" >&2
exit 1
