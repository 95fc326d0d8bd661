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
  ./target/release/simclr bench --quiet --json --cached --steps 1 --config bench/resnet18_b32.yaml |
    python3 -c 'import json,sys; d=json.load(sys.stdin); d["who"]="again"; print(json.dumps(d))' >>"$results"
  "$python" bench/jax_step.py 6 |
    python3 -c 'import json,sys; d=json.load(sys.stdin); d["who"]="jax"; print(json.dumps(d))' >>"$results"
done
python3 - "$results" <<'PY'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
def of(who):
    return [r for r in rows if r["who"] == who]


ours, again, jax = of("simclr"), of("again"), of("jax")
print(f"{'':<34}{'simclr':>10}{'jax':>10}   simclr/jax per round (median)")


def line(name, ours, jax, key, scale=1.0):
    ratios = [a[key] / b[key] for a, b in zip(ours, jax)]
    middle = [statistics.median(r[key] * scale for r in side) for side in (ours, jax)]
    print(f"{name:<34}{middle[0]:>10.1f}{middle[1]:>10.1f}   "
          + " ".join(f"{r:.2f}" for r in ratios) + f"  ({statistics.median(ratios):.2f})")


line("images per second", ours, jax, "images_per_second")
line("compile, s", ours, jax, "compile_seconds")
line("start to end of step 1, s", ours, jax, "first_step_seconds")
if len(again) > 1:
    # The first round fills the cache of compiled programs.
    line("the same at later starts, s", again[1:], jax[1:], "first_step_seconds")
line("most memory of the process, MiB", ours, jax, "peak_memory_bytes", 1 / 2**20)
line("processor time per image, ms", ours, jax, "cpu_seconds_per_image", 1e3)
PY
