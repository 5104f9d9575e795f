#!/usr/bin/env bash
# jax2onnx 0.17.1 and JAX 0.12.0.1, the newest of both: ReLU, SiLU and softplus cannot be converted.
#
# jax2onnx asks for `jax>=0.8.1` without an upper bound, so that `pip install jax2onnx` brings JAX 0.12.0.1 on
# Python 3.12. With it, `to_onnx` fails on `jax.nn.relu`, `silu` and `softplus`, that is, on most policies and
# networks: "module 'jax._src.core' has no attribute 'ClosedJaxpr'", a name that JAX keeps in
# `jax.extend.core`. `tanh` is converted, so a first trial may well succeed. On JAX 0.10.2, jax2onnx 0.13.0
# converts ReLU, too.
#
# Output seen:
#   jax2onnx 0.17.1, jax 0.12.0.1
#   tanh: Tanh
#   relu: AttributeError: module 'jax._src.core' has no attribute 'ClosedJaxpr'
#   silu: AttributeError: module 'jax._src.core' has no attribute 'ClosedJaxpr'
#   softplus: AttributeError: module 'jax._src.core' has no attribute 'ClosedJaxpr'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.12 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'jax2onnx==0.17.1' 'jax==0.12.0.1' 'flax==0.12.12'
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
from importlib import metadata

import jax
import jax.numpy as jnp
from jax2onnx import to_onnx

print(f"jax2onnx {metadata.version('jax2onnx')}, jax {jax.__version__}")


def converted(function) -> str:
    try:
        return " ".join(node.op_type for node in to_onnx(function, [("batch", 3)]).graph.node)
    except AttributeError as error:
        return f"AttributeError: {error}"


found = {
    "tanh": converted(jnp.tanh),
    "relu": converted(jax.nn.relu),
    "silu": converted(jax.nn.silu),
    "softplus": converted(jax.nn.softplus),
}
for name, text in found.items():
    print(f"{name}: {text}")
assert found.pop("tanh") == "Tanh"
assert all("ClosedJaxpr" in text for text in found.values())
PYTHON
