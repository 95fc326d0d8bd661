#!/usr/bin/env bash
# The same step in simclr and in plain JAX, in turn, round by round; one table of ratios.
#
#   bench/race.sh [ROUNDS]
#
# Sets up a virtual environment of its own with pip, outside the tree, unless BENCH_PYTHON names a Python that has jax.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
python=${BENCH_PYTHON:-}
if [ -z "$python" ]; then
  venv=${XDG_CACHE_HOME:-$HOME/.cache}/simclr/bench-venv
  [ -d "$venv" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet jax numpy
  python=$venv/bin/python
fi
cargo build --release --quiet
results=$(mktemp)
trap 'rm -f "$results"' EXIT
for _ in $(seq "$rounds"); do
  ./target/release/simclr bench --quiet --json --steps 6 --config bench/resnet18_b32.yaml |
    python3 -c 'import json,sys; d=json.load(sys.stdin); d["who"]="simclr"; print(json.dumps(d))' >>"$results"
  "$python" bench/jax_step.py 6 |
    python3 -c 'import json,sys; d=json.load(sys.stdin); d["who"]="jax"; print(json.dumps(d))' >>"$results"
done
python3 - "$results" <<'PY'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
ours = [r for r in rows if r["who"] == "simclr"]
jax = [r for r in rows if r["who"] == "jax"]
print(f"{'':<28}{'simclr':>10}{'jax':>10}   simclr/jax per round (median)")
for key, name in [("images_per_second", "images per second"), ("compile_seconds", "compile, s"),
                  ("first_step_seconds", "start to end of step 1, s")]:
    ratios = [a[key] / b[key] for a, b in zip(ours, jax)]
    print(f"{name:<28}{statistics.median(r[key] for r in ours):>10.1f}{statistics.median(r[key] for r in jax):>10.1f}   "
          + " ".join(f"{r:.2f}" for r in ratios) + f"  ({statistics.median(ratios):.2f})")
PY
