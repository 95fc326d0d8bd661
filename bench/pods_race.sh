#!/usr/bin/env bash
# The ResNet-50 step compiled for a TPU slice: simclr against plain JAX, by the same compiler; one table. Takes minutes of processor time.
#
#   bench/pods_race.sh [TOPOLOGY]      # default v3:8x8
#
# The same work on both sides: 32 images per core, bf16 activations, f32 parameters, momentum, no colour, no blur. BENCH_PYTHON names a
# Python that has jax; else a virtual environment is made outside the tree. libtpu is the one that `simclr plugins install tpu` keeps.
set -euo pipefail
cd "$(dirname "$0")/.."
topology=${1:-v3:8x8}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/simclr
python=${BENCH_PYTHON:-}
if [ -z "$python" ]; then
  venv=$cache/bench-venv
  [ -d "$venv" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet jax numpy
  python=$venv/bin/python
fi
cargo build --release --quiet
./target/release/simclr plugins install tpu --quiet
TPU_LIBRARY_PATH=$(ls "$cache"/plugins/libtpu-*/libtpu/libtpu.so)
export TPU_LIBRARY_PATH
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
"$python" bench/pods_jax.py "$topology" 32 > "$results/jax.json"
devices=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["devices"])' "$results/jax.json")
./target/release/simclr compile --quiet --json --topology "$topology" --config bench/steps/pods_resnet50.yaml \
  train_batch_size=$((32 * devices)) > "$results/simclr.json"
python3 - "$results" <<'PY'
import json, sys
ours, jax = (json.load(open(f"{sys.argv[1]}/{who}.json")) for who in ("simclr", "jax"))
print(f"{'':<28}{'simclr':>12}{'jax':>12}{'ratio':>8}")
for name, get in [
    ("optimal seconds", lambda d: d["optimal_seconds"]),
    ("operations, 1e12", lambda d: d["flops"] / 1e12),
    ("bytes accessed, 1e9", lambda d: d["bytes_accessed"] / 1e9),
    ("temporaries, 1e9", lambda d: d["memory"]["temporaries"] / 1e9),
    ("arguments, 1e6", lambda d: d["memory"]["arguments"] / 1e6),
    ("compile, s of processor", lambda d: d["compile_cpu_seconds"]),
]:
    a, b = get(ours), get(jax)
    print(f"{name:<28}{a:>12.4f}{b:>12.4f}{a / b:>8.3f}")
PY
