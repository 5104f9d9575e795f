#!/usr/bin/env bash
# What is worth knowing of a GPU that is there for eight minutes, the most important first. All that is found is
# written at once, so that what was done counts if the time ends early.
#
#   benchmarks/on_gpu.sh OUT [python] [another checkout, to compare with]
#
# The environment needs `pip install ".[cuda13]"` (or cuda12). REHEARSAL=1 goes through it on a CPU, with small sizes.
set -uo pipefail

out=${1:?name the folder for the results}
python=${2:-python3}
against_dir=${3:+$(realpath "$3")}
mkdir -p "$out"
out=$(realpath "$out")
cd "$(dirname "$0")/.." || exit 1
began=$SECONDS
left() { echo $((${LIMIT:-480} - SECONDS + began)); }

if [ -n "${REHEARSAL:-}" ]; then
  sizes=(--runs 1 2 --rounds 1 --seconds 0.1) seeds=2 tasks="pendulum"
else
  "$python" -c 'import jax; assert jax.default_backend() == "gpu", jax.devices()' || exit 1
  sizes=(--rounds 1 --seconds 2) seeds=8 tasks="gym/HalfCheetah-v5 gym/Hopper-v5"
fi

# 1. A SAC update and a gradient step of the ensemble, of 1, 16, 4 and 64 runs, in turns with the other checkout.
timeout 240 "$python" -m benchmarks.side_by_side "${sizes[@]}" ${against_dir:+--against "$against_dir"} |
  tee "$out/side_by_side.jsonl"

# 2. Trainings, for the rest of the time in equal parts; what is interrupted leaves its rows and its curve.
count=$(wc -w <<<"$tasks")
for task in $tasks; do
  seconds=$(($(left) / count - 10))
  [ "$seconds" -gt 30 ] || break
  timeout --kill-after 20 "$seconds" "$python" -m mbpo_jax train "$task" --num-seeds "$seeds" \
    --run-dir "$out/$(basename "$task" -v5)" 2>&1 | tee "$out/$(basename "$task" -v5).log"
  count=$((count - 1))
done
