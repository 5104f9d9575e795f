#!/usr/bin/env bash
# playground 0.2.0 (MuJoCo Playground): an episode's first observation shows the target where it is not.
#
# ReacherEasy, ReacherHard, FingerTurnEasy, FingerTurnHard, FishSwim and SwimmerSwimmer6 draw a target at each
# reset and put it in place after `mjx.forward` has computed where everything is. What is observed then is made of
# the old positions: the distance to the target of the model's file, the same in all episodes. From the first
# step on it is right. So a value or a policy of initial states cannot know the task, a plan from there goes to
# the wrong place, and one transition in each episode teaches a dynamics model that targets jump. `forward` once
# more, before the observation, mends it.
#
# Output seen:
#   ReacherEasy: 100 targets, up to 0.39 m apart; observed at the reset: 1, after a step: 100
#   FingerTurnEasy: 95 targets, up to 0.26 m apart; observed at the reset: 1, after a step: 95
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'playground==0.2.0' 'mujoco-mjx==3.17.0' 'mujoco==4.0.0' 'jax==0.10.2'
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np
from mujoco_playground import dm_control_suite


def distinct(points):
    return len(np.unique(np.round(points, 3), axis=0))


def finger_of_reacher(qpos):
    """Where the finger is: two links of 0.12 m, the second bent by the second angle."""
    angles = np.cumsum(qpos, axis=-1)
    return 0.12 * np.stack([np.cos(angles).sum(-1), np.sin(angles).sum(-1)], -1)


def observed_targets(task, obs, qpos):
    """Return where the observation says that the target is."""
    if task == "ReacherEasy":
        return obs[:, 2:4] + finger_of_reacher(qpos)
    return obs[:, 9:11]  # seen from the hinge


for task in ("ReacherEasy", "FingerTurnEasy"):
    env = dm_control_suite.load(task, config_overrides={"impl": "jax"})
    states = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.PRNGKey(0), 100))
    # One step without an action, after which the positions observed are those at most 0.02 s before.
    steps = jax.jit(jax.vmap(env.step))(states, jnp.zeros((100, env.action_size)))
    real = np.asarray(states.data.mocap_pos[:, 0])
    apart = np.linalg.norm(real[:, None] - real[None], axis=-1).max()
    first, second = (
        distinct(observed_targets(task, np.asarray(s.obs), np.asarray(states.data.qpos)))
        for s in (states, steps)
    )
    print(
        f"{task}: {distinct(real)} targets, up to {apart:.2f} m apart; "
        f"observed at the reset: {first}, after a step: {second}"
    )
    assert first == 1 and second > 90
PYTHON
