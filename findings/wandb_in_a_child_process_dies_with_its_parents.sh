#!/usr/bin/env bash
# wandb 0.31.0: a program that is started by one that uses wandb loses its run when that one is done with wandb.
#
# `wandb.init` writes the address of its service into the environment (WANDB_SERVICE), which every program started
# from there inherits. A program that calls `wandb.init` itself then gets no service of its own: its run lives in
# its parent's, and `wandb.teardown()` in the parent, or the parent's end, takes that away. The next `log` of the
# child raises ConnectionResetError, though both are separate programs with separate runs. Without the variable
# (`os.environ.pop("WANDB_SERVICE", None)` ahead of `import wandb`) nothing of the kind happens.
#
# Output seen:
#   WANDB_SERVICE inherited: the child ends with code 1, ConnectionResetError: Connection lost
#   WANDB_SERVICE taken out: the child ends with code 0, 30 rows told
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'wandb==0.31.0'
cd "$folder"
export WANDB_MODE=offline WANDB_SILENT=true WANDB_ERROR_REPORTING=false
cat >child.py <<'PYTHON'
import os
import sys
import time

if sys.argv[1] == "out":
    os.environ.pop("WANDB_SERVICE", None)
import wandb

run = wandb.init(project="child")
print("begun", flush=True)
sys.stdin.readline()  # until the parent is done with wandb
try:
    for step in range(30):
        run.log({"step": step})
        time.sleep(0.1)
    run.finish()
except ConnectionError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    os._exit(1)
print("30 rows told")
PYTHON
cat >parent.py <<'PYTHON'
import subprocess
import sys

import wandb

ends = []
for how, words in (("in", "inherited"), ("out", "taken out")):
    run = wandb.init(project="parent")
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "child.py", how], stdin=pipe, stdout=pipe, text=True)
    assert child.stdout.readline() == "begun\n"
    run.finish()
    wandb.teardown()
    said = child.communicate("\n", timeout=60)[0].strip()
    print(f"WANDB_SERVICE {words}: the child ends with code {child.returncode}, {said}")
    ends.append(child.returncode)
assert ends == [1, 0], ends
PYTHON
"$folder/venv/bin/python" parent.py
