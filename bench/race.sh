#!/usr/bin/env bash
# The same training step in simclr, plain JAX and PyTorch (eager and torch.compile), in turn, round by round; a table for each step.
#
#   bench/race.sh [--rounds N] [--sides simclr,jax,torch,torch.compile] [STEP…]
#
# It ends with an error after a table in which the losses of two sides differ by more than a thousandth.
#
# STEP is a file of bench/steps without its ending; all of them without one. A side may be `simclr KEY=VALUE…`, a variant. Sets up a
# virtual environment of its own with pip, outside the tree, unless BENCH_PYTHON names a Python that has jax and torch. (Where the
# configured index has no PyTorch for the CPU alone, the one for Linux brings CUDA's packages along, several GB.)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${BENCH_PYTHON:-}
if [ -z "$python" ]; then
  venv=${XDG_CACHE_HOME:-$HOME/.cache}/simclr/bench-venv
  [ -d "$venv" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet jax numpy
  # Without CUDA where the configured index has such packages.
  "$venv/bin/pip" install --quiet "torch==2.15.0+cpu" 2>/dev/null || "$venv/bin/pip" install --quiet torch
  python=$venv/bin/python
fi
cargo build --release --quiet
exec "$python" bench/race.py "$@"
