#!/usr/bin/env bash
# mujoco 4.0.0 and gymnasium 1.4.0: after a state that blew up, steps return numbers that look healthy.
#
# Where positions, velocities or accelerations become NaN or huge, MuJoCo resets its data to the model's initial
# state in the middle of the step and goes on. Gymnasium's `step` then returns finite observations and a finite
# reward, and neither `terminated` nor `truncated` is set: a replay buffer gets a transition in which the robot
# jumped home. An action of NaN is likewise replaced by zeros, without a word in what `step` returns. The only
# traces are `data.warning`, a clock that went back, and a line on standard error (and in MUJOCO_LOG.TXT) for
# the first time.
#
# Output seen:
#   blown up: reward finite True, observation finite True, terminated False, truncated False, warnings 1, clock 0.05 s after 100 steps
#   NaN action: observation finite True, terminated False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'gymnasium[mujoco]==1.4.0' 'mujoco==4.0.0' 'numpy==2.4.6'
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import gymnasium
import mujoco
import numpy as np

env = gymnasium.make("HalfCheetah-v5").unwrapped
env.reset(seed=0)
rest = np.zeros(6, np.float32)
for _ in range(100):
    env.step(rest)
env.data.qvel[:] = 1e9  # as a controller that runs away leaves it
observation, reward, terminated, truncated, _ = env.step(rest)
number = int(env.data.warning[mujoco.mjtWarning.mjWARN_BADQACC].number)
healthy = np.isfinite(reward), np.isfinite(observation).all()
print(
    f"blown up: reward finite {healthy[0]}, observation finite {healthy[1]}, terminated {terminated}, "
    f"truncated {truncated}, warnings {number}, clock {env.data.time:.2g} s after 100 steps"
)
assert all(healthy) and not terminated and not truncated and number and env.data.time < 1
env.reset(seed=0)
observation, _, terminated, _, _ = env.step(np.full(6, np.nan, np.float32))
print(f"NaN action: observation finite {np.isfinite(observation).all()}, terminated {terminated}")
assert np.isfinite(observation).all() and not terminated
PYTHON
