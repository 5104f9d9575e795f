"""One side of `benchmarks.policy_search`; runs in either version of the package."""

import dataclasses
import functools
import json
import sys
import time

import jax
import jax.numpy as jnp

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import ALGORITHMS, Config
from mbpo_jax.envs import make_env
from mbpo_jax.presets import environment_preset
from mbpo_jax.types import Transition

HORIZON, REPEATS, UPDATES = 100, 3, 2
OLD = {"ratio": "pg", "path": "bptt"}
NEW = {"ratio": "lr_gae", "path": "rp"}


def config_of(model: str, kind: str) -> Config:
    base = environment_preset("pendulum")
    if "policy_search" not in ALGORITHMS:
        search = dataclasses.replace(getattr(base, "search"), horizon=HORIZON)  # noqa: B009
        changes: dict = {"algorithm": OLD[kind], "model": model, "search": search}
        return dataclasses.replace(base, **changes)
    search = dataclasses.replace(base.policy_search, horizon=HORIZON, gradient=NEW[kind])
    return dataclasses.replace(base, algorithm="policy_search", model=model, policy_search=search)


@functools.cache
def compiled(model: str, kind: str):
    """Return a compiled function of a key that makes some updates."""
    config = config_of(model, kind)
    env = make_env(config.env)
    algorithm = make_algorithm(env, config)
    agent, dynamics = algorithm.agent, algorithm.model
    assert dynamics is not None
    # Both sides roll out as many rows: equal shares of the elites.
    shares = config.ensemble.num_elites if model == "learned" else 1
    rows = -(-32 // shares) * shares
    start = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), rows))
    nothing = jnp.zeros(rows)
    simulator = start.simulator if dynamics.needs_simulator else ()
    x, action = start.observation, jnp.zeros((rows, env.spec.action_size))
    batch = Transition(x, action, nothing, nothing, x, simulator=simulator)
    ready, init = dynamics.ready, dynamics.init
    view = jax.jit(lambda key: ready(init(key)))(jax.random.key(1))
    state = jax.jit(agent.init)(jax.random.key(2))

    def updates(key, state, view, batch):
        def one(state, key):
            return agent.update(key, state, view, batch)[0], None

        return jax.lax.scan(one, state, jax.random.split(key, UPDATES))[0]

    run = jax.jit(updates).lower(jax.random.key(3), state, view, batch).compile()
    return lambda key: jax.block_until_ready(run(key, state, view, batch))


def main() -> None:
    for line in sys.stdin:
        run = compiled(*line.split())
        seconds = []
        for i in range(REPEATS):
            began = time.perf_counter()
            run(jax.random.key(i))
            seconds.append((time.perf_counter() - began) / UPDATES)
        print(json.dumps({"seconds": min(seconds), "jax": jax.__version__}), flush=True)


if __name__ == "__main__":
    main()
