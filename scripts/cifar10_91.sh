#!/usr/bin/env bash
# The CIFAR-10 recipe on one GPU: pretraining by configs/cifar10_resnet18.yaml, a linear head by configs/cifar10_linear.yaml (the
# original reports about 91 % after 1000 epochs), evaluation, a page about both, and a table of accuracy, speed and memory.
#
#   scripts/cifar10_91.sh [KEY=VALUE…] [head:KEY=VALUE…]
#
# Started again it goes on where it stopped: inside a part from its newest checkpoint, and parts that are done are not done again.
# KEY=VALUE goes before the values of pretraining, head:KEY=VALUE before those of the head; runtime.KEY=VALUE goes to both.
#
#   EPOCHS        epochs of pretraining; several lengths are done one after the other    1000
#   PRECISION     f32, bf16, or both: "f32 bf16"                                         f32
#   WARMUP        epochs of warm-up                                                      10, or EPOCHS/10 below 100
#   HEAD_EPOCHS   epochs of the head                                                     100
#   RUNS          where the runs go, a folder for each length and precision              runs/cifar10_91
#   DATA_DIR      TFDS's records or the unpacked binary archive                          fetched once (170 MB, SHA-256 checked)
#   PLATFORM      cuda, cpu, tpu                                                         cuda
#   SIMCLR        the program                                                            built here with cargo, else simclr
#   BENCH_STEPS   steps to measure speed and memory on; 0 leaves that out                100
#
# The table is RUNS/table.md; beside it each folder has pretrain/, linear/, evaluate.json, bench.json and report.html.
# Exit codes are simclr's: 75 and 130 mean that everything is saved.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

EPOCHS=${EPOCHS:-1000}
PRECISION=${PRECISION:-f32}
HEAD_EPOCHS=${HEAD_EPOCHS:-100}
RUNS=${RUNS:-runs/cifar10_91}
PLATFORM=${PLATFORM:-cuda}
BENCH_STEPS=${BENCH_STEPS:-100}

fail() { echo "cifar10_91.sh: $1" >&2; exit 2; }
say() { echo "cifar10_91.sh: $*" >&2; }

for number in $EPOCHS; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || fail "EPOCHS holds \`$number\`, expected whole numbers above 0, such as EPOCHS=\"100 1000\""
done
for word in $PRECISION; do
  [[ $word =~ ^(f32|bf16)$ ]] || fail "PRECISION holds \`$word\`, expected f32, bf16 or both"
done
pretrain_keys=() head_keys=()
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    runtime.*=*) pretrain_keys+=("$argument"); head_keys+=("$argument") ;;
    head:*=*) head_keys+=("${argument#head:}") ;;
    [a-z]*=*) pretrain_keys+=("$argument") ;;
    *) fail "argument \`$argument\`, expected KEY=VALUE or head:KEY=VALUE; --help says more" ;;
  esac
done

# A part is a job of its own, so that it gets each signal once, from here: it saves and ends, then this script ends with its exit code.
set -m
child=
pass_on() { [ -z "$child" ] || kill -s "$1" -- "-$child" 2> /dev/null || true; }
trap 'pass_on TERM' TERM HUP
trap 'pass_on INT' INT
watched() {
  local code=0
  "$@" &
  child=$!
  # A signal ends `wait`, not the part.
  while :; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2> /dev/null || break
  done
  child=
  return "$code"
}

# part MARK OUTPUT COMMAND…: runs a command once. MARK keeps what was done, so that other settings are not taken for done. OUTPUT is
# the file for its results, whole or not there; - leaves them on the screen.
part() {
  local mark=$1 output=$2 command code=0
  command=$(printf '%q ' "${@:4}")
  if [ -f "$mark" ] && [ "$(cat "$mark")" = "$command" ]; then
    say "done before: simclr $command"
    return
  fi
  # What was made from an older result is made anew.
  case ${mark##*/} in
    pretrain.done) rm -f "${mark%/*}"/{linear,evaluate,report}.done ;;
    linear.done) rm -f "${mark%/*}"/{evaluate,report}.done ;;
    evaluate.done) rm -f "${mark%/*}/report.done" ;;
  esac
  say "simclr $command"
  if [ "$output" = - ]; then
    watched "${@:3}" || code=$?
  else
    watched "${@:3}" > "$output.part" || code=$?
  fi
  [ "$code" = 0 ] || exit "$code"
  [ "$output" = - ] || mv "$output.part" "$output"
  echo "$command" > "$mark.part"
  mv "$mark.part" "$mark"
}

# number FILE NAME: the number of this name in a JSON file; nothing where there is none.
number() { [ ! -f "$1" ] || sed -n "s/^ *\"$2\": \([-+.eE0-9]*\),\{0,1\}\$/\1/p" "$1" | head -n 1; }

simclr=${SIMCLR:-}
if [ -z "$simclr" ] && command -v cargo > /dev/null; then
  watched cargo build --release --quiet --manifest-path "$root/Cargo.toml" || exit
  simclr=$root/target/release/simclr
fi
simclr=${simclr:-simclr}
command -v "$simclr" > /dev/null || fail "no program \`$simclr\`, expected simclr on the PATH or cargo to build it; set SIMCLR"

"$simclr" devices runtime.platform="$PLATFORM" ${head_keys[@]+"${head_keys[@]}"} >&2 || exit

if [ -z "${DATA_DIR:-}" ]; then
  DATA_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/simclr/cifar10
  if [ ! -d "$DATA_DIR/cifar-10-batches-bin" ]; then
    archive=$DATA_DIR/cifar-10-binary.tar.gz
    mkdir -p "$DATA_DIR"
    say "fetching CIFAR-10 to $DATA_DIR"
    watched curl -fL -C - -o "$archive" https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz ||
      fail "CIFAR-10 could not be fetched; set DATA_DIR to a folder that has it"
    echo "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd  $archive" | sha256sum --check --quiet >&2 || {
      rm -f "$archive"
      fail "$archive was not CIFAR-10's binary archive (SHA-256); it is deleted, start again"
    }
    rm -rf "$DATA_DIR/part"
    mkdir "$DATA_DIR/part"
    tar -xzf "$archive" -C "$DATA_DIR/part"
    mv "$DATA_DIR/part/cifar-10-batches-bin" "$DATA_DIR/"
    rm -rf "$DATA_DIR/part" "$archive"
  fi
fi

row() { # of the table, from what the parts wrote
  local run=$1 epochs=$2 precision=$3 speed
  speed=$(number "$run/bench.json" images_per_second)
  awk -v epochs="$epochs" -v precision="$precision" -v speed="$speed" \
    -v top1="$(number "$run/evaluate.json" top_1)" -v top5="$(number "$run/evaluate.json" top_5)" \
    -v knn="$(number "$run/evaluate.json" knn_200)" -v probe="$(number "$run/evaluate.json" linear_probe)" \
    -v arguments="$(number "$run/bench.json" arguments)" -v temporaries="$(number "$run/bench.json" temporaries)" '
    function share(x) { return x == "" ? "–" : sprintf("%.2f %%", 100 * x) }
    BEGIN {
      printf "| %d | %s | %s | %s | %s | %s | %s | %s | %s |\n", epochs, precision, share(top1), share(top5), share(knn), share(probe),
        speed == "" ? "–" : sprintf("%.0f", speed), speed == "" ? "–" : sprintf("%.1f s", 50000 / speed),
        arguments == "" ? "–" : sprintf("%.0f MiB", (arguments + temporaries) / 1048576)
    }'
}

mkdir -p "$RUNS"
for precision in $PRECISION; do
  for epochs in $EPOCHS; do
    run=$RUNS/${epochs}-epochs-$precision
    mkdir -p "$run"
    warmup=${WARMUP:-$(awk -v epochs="$epochs" 'BEGIN { print epochs < 100 ? epochs / 10 : 10 }')}
    pretraining=(--config "$root/configs/cifar10_resnet18.yaml" data_dir="$DATA_DIR" train_epochs="$epochs" warmup_epochs="$warmup"
      runtime.precision="$precision" runtime.platform="$PLATFORM" ${pretrain_keys[@]+"${pretrain_keys[@]}"})
    part "$run/pretrain.done" - "$simclr" pretrain "${pretraining[@]}" model_dir="$run/pretrain"
    part "$run/linear.done" - "$simclr" finetune --config "$root/configs/cifar10_linear.yaml" checkpoint="$run/pretrain" \
      data_dir="$DATA_DIR" train_epochs="$HEAD_EPOCHS" runtime.precision="$precision" runtime.platform="$PLATFORM" \
      ${head_keys[@]+"${head_keys[@]}"} model_dir="$run/linear"
    part "$run/evaluate.done" "$run/evaluate.json" "$simclr" evaluate "$run/linear" --json
    [ "$BENCH_STEPS" = 0 ] ||
      part "$run/bench.done" "$run/bench.json" "$simclr" bench "${pretraining[@]}" --cached --steps "$BENCH_STEPS" --json
    part "$run/report.done" - "$simclr" report "$run/pretrain" "$run/linear" -o "$run/report.html"
  done
done

# Every run of RUNS, also those of earlier starts.
{
  echo "| epochs | precision | head, top-1 | top-5 | k-NN, k = 200 | linear probe | images/s | epoch | device memory |"
  echo "|---|---|---|---|---|---|---|---|---|"
  for run in "$RUNS"/*-epochs-*; do
    [ -f "$run/evaluate.json" ] || continue
    name=$(basename "$run")
    row "$run" "${name%%-epochs-*}" "${name##*-epochs-}"
  done | sort -t '|' -k 3,3 -k 2,2n
} > "$RUNS/table.md.part"
mv "$RUNS/table.md.part" "$RUNS/table.md"
cat "$RUNS/table.md"
