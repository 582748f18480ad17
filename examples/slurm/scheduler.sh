#!/bin/bash
# The scheduler of one run and its Redis, on a node that workers can reach: a service node, or a long job of one CPU.
#   ./scheduler.sh pipeline.yaml RUN        or  sbatch --time=7-0 scheduler.sh pipeline.yaml RUN
# RUN is a folder on the shared file system. It gets the token, the address and the run itself (Redis' append-only file), so
# the same command resumes a run that was interrupted. Ends with the run: 0 done, 1 blocks failed, 2 bad input.
# Blocks that failed: `blockyard retry RUN`, then the same command again.
set -euo pipefail
umask 077 # the token is a secret

pipeline=$(cd -- "$(dirname -- "$1")" && pwd)/$(basename -- "$1")
mkdir -p -- "$2"
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
dirname -- "$pipeline" > "$run/folder"
case $0 in # a batch system runs a copy of this file
  */slurm_script) typed="sbatch scheduler.sh" ;;
  */.lsbatch/*) typed="bsub scheduler.sh" ;;
  *) typed=$(printf %q "$0") ;;
esac
printf '%s %q %q' "$typed" "$1" "$2" > "$run/command"

# One scheduler a run. Earlier versions kept the state in the folder itself.
mkdir -p "$run/redis"
exec 9>> "$run/redis/lock"
flock --nonblock --conflict-exit-code 75 9 || [[ $? != 75 ]] || {
  echo "another scheduler, or a command that looks at the run, uses $run now; if its node is gone, remove $run/redis/lock" >&2
  exit 2
}
[[ ! -d $run/appendonlydir || -d $run/redis/appendonlydir ]] || mv "$run/appendonlydir" "$run/redis/"

# Redis listens on a socket of this node only. The name of a socket must be short, which TMPDIR of a job often is not.
local=
for folder in /tmp "${TMPDIR:-/tmp}" /var/tmp /dev/shm; do
  [[ ${#folder} -lt 60 && $folder =~ ^[A-Za-z0-9/._-]+$ ]] && local=$(mktemp -d "$folder/blockyard.XXXXXXXX" 2> /dev/null) && break
done
[[ -d $local ]] || { echo "no folder for Redis' socket: neither /tmp nor TMPDIR nor the like can be written" >&2 && exit 2; }
"$(python3 -P -c 'from blockyard.local.redis import find_server; print(find_server())')" \
  --port 0 --unixsocket "$local/redis" --dir "$run/redis" --logfile "$run/redis.log" \
  --appendonly yes --appendfsync always --save '' --maxmemory-policy noeviction &
redis=$!

export BLOCKYARD_METRICS_TOKEN=${BLOCKYARD_METRICS_TOKEN:-1} # others are on this node
blockyard scheduler --pipeline "$pipeline" --run-dir "$run" --host 0.0.0.0 --port "$port" --advertise "$host:$port" \
  --http-port "${BLOCKYARD_HTTP_PORT:-8471}" --redis-url "unix://$local/redis" --token-file "$run/token" --exit-when-done &
scheduler=$!

leave() {
  rm -f "$run/address" # workers that start from now on have nothing to do
  kill "$redis" 2> /dev/null || true
  wait "$redis" 2> /dev/null || true
  rm -rf "${local:?}"
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
