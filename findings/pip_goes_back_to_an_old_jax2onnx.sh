#!/usr/bin/env bash
# jax2onnx: beside a current Orbax, pip installs 0.13.0, nine releases behind 0.17.1, and says nothing.
#
# From 0.13.1 on, jax2onnx asks for `orbax-checkpoint<0.11.37`. Where something else in the same installation asks
# for a newer Orbax, pip walks back to the last release without that bound. It succeeds, and the only trace is the
# number in `pip list`: the documentation is that of another release. A lower bound, `jax2onnx>=0.17`, turns it
# into a conflict that is reported.
#
# Output seen:
#   asked for: jax2onnx<=0.17.1, orbax-checkpoint>=0.12
#   installed: jax2onnx 0.13.0, orbax-checkpoint 0.12.8
#   without Orbax: jax2onnx 0.17.1, orbax-checkpoint 0.11.36
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"

# The releases that pip chooses, without installing them.
choice() {
  "$folder/venv/bin/pip" install --quiet --quiet --dry-run --report "$folder/report.json" "$@"
  "$folder/venv/bin/python" - "$folder/report.json" <<'PYTHON'
import json
import sys

with open(sys.argv[1]) as file:
    chosen = [item["metadata"] for item in json.load(file)["install"]]
versions = {item["name"]: item["version"] for item in chosen}
print(", ".join(f"{name} {versions[name]}" for name in ("jax2onnx", "orbax-checkpoint")))
PYTHON
}

beside=$(choice 'jax2onnx<=0.17.1' 'orbax-checkpoint>=0.12')
alone=$(choice 'jax2onnx<=0.17.1')
echo "asked for: jax2onnx<=0.17.1, orbax-checkpoint>=0.12"
echo "installed: $beside"
echo "without Orbax: $alone"
[[ $beside == 'jax2onnx 0.13.0, '* && $alone == 'jax2onnx 0.17.1, '* ]]
