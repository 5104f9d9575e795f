#!/usr/bin/env bash
# playground 0.2.0 (MuJoCo Playground) on current JAX: parts of the initial state determine each other.
#
# Resets of Finger* and Cartpole* use a key twice. Since `jax_threefry_partitionable` became the default (JAX 0.5),
# the first numbers drawn with a key are the same for every shape, so what was drawn twice is not merely related but
# equal: FingerSpin's and FingerTurn*'s first joint tells the angle of the body that is to be turned, Cartpole's
# position (CartpoleSwingup) or angle (CartpoleBalance) tells the cart's velocity. dm_control draws them
# independently. So episodes start on a surface of one dimension less: FingerSpin's initial states, which are three
# angles, have two. Neither seeds nor more episodes show what is missing.
#
# Output seen:
#   FingerSpin: rank correlation of the first joint and the spinner 1.000
#   CartpoleSwingup: rank correlation of the cart's position and velocity 1.000
#   CartpoleBalance: rank correlation of the pole's angle and the cart's velocity 1.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'playground==0.2.0' 'mujoco-mjx==3.17.0' 'mujoco==4.0.0' 'jax==0.10.2'
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import jax
import numpy as np
from mujoco_playground import dm_control_suite
from scipy.stats import spearmanr

for task, first, second, names in (
    ("FingerSpin", 0, 2, "the first joint and the spinner"),
    ("CartpoleSwingup", 0, 2, "the cart's position and velocity"),
    ("CartpoleBalance", 1, 2, "the pole's angle and the cart's velocity"),
):
    env = dm_control_suite.load(task, config_overrides={"impl": "jax"})
    data = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.PRNGKey(0), 500)).data
    starts = np.concatenate([data.qpos, data.qvel], axis=1)
    correlation = spearmanr(starts[:, first], starts[:, second]).statistic
    print(f"{task}: rank correlation of {names} {correlation:.3f}")
    assert correlation > 0.999
PYTHON
