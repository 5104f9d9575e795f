#!/usr/bin/env bash
# playground 0.2.0 (MuJoCo Playground): the reward of a step of DeepMind Control's tasks is that of the state before it.
#
# `mjx.step` computes poses and sensors first and moves the joints then, so after it `data.qpos` and `data.qvel` are
# new, and `data.xmat`, `data.xpos` and `data.sensordata` are one physics step old. Playground's tasks observe both
# and are paid by the latter. Where a control step is one physics step (CheetahRun, Cartpole*, Acrobot*, PointMass),
# the reward therefore does not see the action at all, but for a penalty of large actions, and an observation mixes
# two times: the cart's new position with the pole's former angle. dm_control brings poses and sensors up to date
# after each step. So what works there and not here: a reward function written by what is observed, a planner of
# one step, the gradient of a reward in its action.
#
# Output seen:
#   CheetahRun: observations 4.6 apart, rewards 0.0 apart
#   dm_control's cheetah: rewards 0.046 apart
#   CartpoleSwingup: the observed cosine is off by 0.001, that before the step by 0.000
#   dm_control's cartpole: the observed cosine is off by 0.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'playground==0.2.0' 'mujoco-mjx==3.17.0' 'mujoco==3.17.0' 'jax==0.10.2' \
  'dm_control==1.0.50'
cd "$folder"
JAX_PLATFORMS=cpu MUJOCO_GL=disable "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np
from dm_control import suite
from mujoco_playground import dm_control_suite


def played(task, *actions):
    """Return Playground's states before and after the last of some steps."""
    env = dm_control_suite.load(task, config_overrides={"impl": "jax"})
    step, state = jax.jit(env.step), jax.jit(env.reset)(jax.random.PRNGKey(0))
    for action in actions:
        before, state = state, step(state, jnp.full(env.action_size, action))
    return before, state


def original(domain, task, *actions):
    env = suite.load(domain, task, task_kwargs={"random": 0})
    env.reset()
    for action in actions:
        time_step = env.step(np.full(env.action_spec().shape, action))
    return env, time_step


(_, high), (_, low) = (played("CheetahRun", *5 * [0.3], last) for last in (1.0, -1.0))
observed, paid = np.abs(high.obs - low.obs).max(), abs(high.reward - low.reward)
print(f"CheetahRun: observations {observed:.1f} apart, rewards {paid:.1f} apart")
(_, up), (_, down) = (original("cheetah", "run", *5 * [0.3], last) for last in (1.0, -1.0))
print(f"dm_control's cheetah: rewards {abs(up.reward - down.reward):.3f} apart")
assert observed > 1 and paid == 0.0 and abs(up.reward - down.reward) > 0.01

before, after = played("CartpoleSwingup", *10 * [1.0])
new, former = (abs(after.obs[1] - jnp.cos(s.data.qpos[1])) for s in (after, before))
print(f"CartpoleSwingup: the observed cosine is off by {new:.3f}, that before the step by {former:.3f}")
env, time_step = original("cartpole", "swingup", *10 * [1.0])
off = abs(time_step.observation["position"][1] - np.cos(env.physics.data.qpos[1]))
print(f"dm_control's cartpole: the observed cosine is off by {off:.3f}")
assert new > 1e-4 > former and off < 1e-9
PYTHON
