#!/bin/bash
# The scheduler of one run and its Redis, on a node that workers can reach: a service node, or a long job of one CPU.
#   ./scheduler.sh pipeline.yaml RUN        or  sbatch --time=7-0 scheduler.sh pipeline.yaml RUN
# RUN is a folder on the shared file system. It gets the token, the address and the run itself (Redis' append-only file), so
# the same command resumes a run that was interrupted. Ends with the run: 0 done, 1 blocks failed, 2 bad input.
set -euo pipefail
umask 077 # the token is a secret

pipeline=$(realpath "$1")
mkdir -p "$2"
run=$(realpath "$2")
port=${BLOCKYARD_PORT:-8470}
host=${BLOCKYARD_REACHED_AS:-$(hostname -f)}

if [[ ! -e $run/.blockyard-run && ! -d $run/appendonlydir ]]; then
  for name in token folder address redis.log; do # what we are going to write there
    [[ ! -e $run/$name ]] || { echo "$run is no run's, and holds '$name'; choose another folder" >&2 && exit 2; }
  done
fi
echo "A run of blockyard keeps its state here." > "$run/.blockyard-run"
[[ -s $run/token ]] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$run/token"
dirname "$pipeline" > "$run/folder"

# Redis listens on a socket of this node only; the name of a socket must be short.
local=$(mktemp -d)
"$(python3 -c 'from blockyard.local.redis import find_server; print(find_server())')" \
  --port 0 --unixsocket "$local/redis" --dir "$run" --logfile "$run/redis.log" \
  --appendonly yes --appendfsync always --save '' --maxmemory-policy noeviction &
redis=$!

blockyard scheduler --pipeline "$pipeline" --host 0.0.0.0 --port "$port" --advertise "$host:$port" \
  --http-port "${BLOCKYARD_HTTP_PORT:-8471}" --redis-url "unix://$local/redis" --token-file "$run/token" --exit-when-done &
scheduler=$!

leave() {
  rm -f "$run/address" # workers that start from now on have nothing to do
  kill "$redis" 2> /dev/null || true
  wait "$redis" 2> /dev/null || true
  rm -rf "$local"
}
trap leave EXIT
trap 'kill -TERM "$scheduler" 2> /dev/null || true' TERM INT

echo "$host:$port" > "$run/address"
status=0
wait "$scheduler" || status=$?
# A signal ends the first wait; the second one is for the scheduler's own end.
if kill -0 "$scheduler" 2> /dev/null; then
  status=0
  wait "$scheduler" || status=$?
fi
exit "$status"
