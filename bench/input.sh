#!/usr/bin/env bash
# The host's part of the input, ours and others', in turn on the same records, cores and image size; see input.py.
#   bench/input.sh DATA_DIR [SIDE...]      PYTHON: a python with tensorflow-cpu, torch, torchvision, pillow
set -euo pipefail
cd "$(dirname "$0")/.."
data=$1; shift
sides=("${@:-}")
[ -n "${sides[0]}" ] || sides=(ours tfdata pillow v2)
for side in "${sides[@]}"; do
    if [ "$side" = ours ]; then
        for _ in 1 2 3; do "${SIMCLR:-./target/release/simclr}" data bench "$data" -n 2000; done
    else
        for what in "" --crops --decode; do
            # shellcheck disable=SC2086 # nothing is no argument
            TF_CPP_MIN_LOG_LEVEL=3 "${PYTHON:-python3}" bench/input.py "$side" "$data" $what 2>/dev/null
        done
    fi
done
