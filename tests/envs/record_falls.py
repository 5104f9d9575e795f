"""Record falls in the simulator, for the test of the termination rules.

`python tests/envs/record_falls.py [environment ...]` plays every environment that terminates on
each of its backends, with uniformly random actions and with full torques that are held for a while,
compares the rule with the simulator on all steps, and stores some falls with the steps before them.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.config import EnvConfig
from mbpo_jax.envs import brax, make_env
from mbpo_jax.envs.base import random_action, step_or_reset
from mbpo_jax.envs.termination import brax_rule, never

DATA = Path(__file__).parent / "data"
NUM_ENVS, NUM_STEPS, HOLD = 32, 200, 15
STORED_FALLS = 24


def play(env, key, violent):
    """Play one environment with automatic resets; return the transitions `[NUM_STEPS, ...]`."""

    def step(carry, index):
        key, state, held = carry
        key, action_key, step_key = jax.random.split(key, 3)
        action = random_action(action_key, env.spec.action_size)
        held = jnp.where(index % HOLD == 0, jnp.sign(action), held)
        state, transition = step_or_reset(env, step_key, state, jnp.where(violent, held, action))
        return (key, state, held), transition

    key, reset_key = jax.random.split(key)
    carry = (key, env.reset(reset_key), jnp.zeros(env.spec.action_size))
    return jax.lax.scan(step, carry, jnp.arange(NUM_STEPS))[1]


def record(name: str, backend: str) -> None:
    """Play, compare, store: `next_observation [N, O]` float32 and `terminated [N]` bool."""
    env = make_env(EnvConfig(name=name, backend=backend))
    keys = jax.random.split(jax.random.key(0), NUM_ENVS)
    violent = jnp.arange(NUM_ENVS) % 2 == 0
    batch = jax.jit(jax.vmap(lambda k, v: play(env, k, v)))(keys, violent)
    terminated = np.asarray(batch.discount == 0)
    observation = np.asarray(batch.next_observation)
    predicted = np.asarray(brax_rule(name, backend)(batch.next_observation))
    finite = np.isfinite(observation).all(-1) & np.isfinite(np.asarray(batch.reward))
    print(
        f"{name} {backend}: {terminated.sum()} falls in {terminated.size} steps, "
        f"{(predicted != terminated).sum()} disagreements, {(~finite).sum()} non-finite",
        flush=True,
    )
    falls = np.argwhere(terminated[:, 1:])
    chosen = falls[np.linspace(0, len(falls) - 1, STORED_FALLS).astype(int)]
    rows, steps = chosen[:, :1], chosen[:, 1:] + np.arange(2)
    DATA.mkdir(exist_ok=True)
    np.savez(
        DATA / f"{name}_{backend}.npz",
        next_observation=observation[rows, steps].reshape(-1, observation.shape[-1]),
        terminated=terminated[rows, steps].ravel(),
    )


if __name__ == "__main__":
    rules = {name: brax_rule(name, "generalized") for name in brax.ENVIRONMENTS}
    terminating = [name for name, rule in rules.items() if rule is not never]
    for name in sys.argv[1:] or terminating:
        for backend in brax.ENVIRONMENTS[name].backends:
            record(name, backend)
