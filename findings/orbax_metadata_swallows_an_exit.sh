#!/usr/bin/env bash
# Orbax 0.12.8 (orbax.checkpoint.v1): `metadata` swallows a `SystemExit` and answers that there is none.
#
# A program that a scheduler ends with SIGTERM usually raises `SystemExit` in the signal's handler, or has Ctrl-C raise
# `KeyboardInterrupt`. While `ocp.metadata(path)` reads a whole, valid checkpoint, whatever is raised is caught, and
# what comes back is an object whose `.metadata` is None, as for a checkpoint that holds nothing. So the program goes
# on, with the request to end forgotten, and whoever looks at the metadata to restore what is there takes a good
# checkpoint for another one. Here a handler raises while the metadata is read, as a signal at that moment would.
#
# Output seen:
#   undisturbed: metadata of ['weights']
#   with SIGTERM at that moment: the program goes on, and the metadata is None
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'orbax-checkpoint==0.12.8' 'jax==0.10.2' 'jaxlib==0.10.2'
cd "$folder"
cat >read.py <<'PYTHON'
import logging
import pathlib
import signal
import sys

import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

logging.disable(logging.WARNING)
path = str(pathlib.Path("checkpoint").absolute())
ocp.save(path, {"weights": jnp.zeros(3)})
print("undisturbed: metadata of", list(ocp.metadata(path).metadata))


def end(number, frame):
    raise SystemExit(75)


def at_that_moment(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "to_flat_dict":
        sys.setprofile(None)
        signal.raise_signal(signal.SIGTERM)


signal.signal(signal.SIGTERM, end)
sys.setprofile(at_that_moment)
found = ocp.metadata(path).metadata
assert sys.getprofile() is None, "no signal was sent"
print("with SIGTERM at that moment: the program goes on, and the metadata is", found)
assert found is None
PYTHON
"$folder/venv/bin/python" read.py
