#!/usr/bin/env bash
# The host's part of the input from disk and from a bucket on loopback, in turn on the same records and cores.
#   bench/bucket.sh DATA_DIR [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
data=$1 rounds=${2:-3} port=${PORT:-4443}
"${PYTHON:-python3}" bench/bucket.py "$data" "$port" &
server=$!
trap 'kill $server' EXIT
export STORAGE_EMULATOR_HOST=127.0.0.1:$port
for _ in $(seq 50); do (: </dev/tcp/127.0.0.1/"$port") 2>/dev/null && break; sleep 0.1; done
for _ in $(seq "$rounds"); do
    for place in "$data" gs://sample; do
        printf '%-50s' "$place"
        ${SIMCLR:-./target/release/simclr} data bench "$place" -n 2000 --json | grep -E '"(read|whole)"' | tr -d '\n'
        echo
    done
done
