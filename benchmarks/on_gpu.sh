#!/usr/bin/env bash
# On a GPU: time the components, train inverted_pendulum, test the parts and the compiled step.
# Needs an environment with `pip install ".[cuda12,dev]"` (or cuda13): benchmarks/on_gpu.sh OUT [python]
set -euo pipefail

out=${1:?name the folder for the results}
python=${2:-python3}
mkdir -p "$out"
"$python" -c 'import jax; assert jax.default_backend() == "gpu", jax.devices()'
"$python" -m benchmarks.components | tee "$out/components.jsonl"
"$python" -m benchmarks.runs_scaling --work hopper | tee "$out/runs_scaling.jsonl"
for seeds in 1 16; do
  "$python" -m mbpo_jax train inverted_pendulum --num-seeds "$seeds" --run-dir "$out/pendulum-$seeds"
done
# The tests hold on any device; products in TF32 are coarser than what they allow.
JAX_PLATFORMS=cuda JAX_DEFAULT_MATMUL_PRECISION=highest "$python" -m pytest -m "slow or not slow" \
  tests/agents tests/models tests/algorithms tests/training/test_loop.py | tee "$out/tests.txt"
