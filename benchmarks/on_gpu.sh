#!/usr/bin/env bash
# Train inverted_pendulum and time the components on a GPU; results go to the folder that is named.
# Needs an environment with `pip install ".[cuda12]"` (or cuda13): benchmarks/on_gpu.sh OUT [python]
set -euo pipefail

out=${1:?name the folder for the results}
python=${2:-python3}
mkdir -p "$out"
"$python" -c 'import jax; assert jax.default_backend() == "gpu", jax.devices()'
"$python" -m benchmarks.components | tee "$out/components.jsonl"
for seeds in 1 16; do
  "$python" -m mbpo_jax train inverted_pendulum --num-seeds "$seeds" --run-dir "$out/pendulum-$seeds"
done
