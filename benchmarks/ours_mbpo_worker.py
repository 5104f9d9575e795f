"""Our side of the end-to-end comparison; started by `benchmarks.end_to_end`.

The training program is compiled as `mbpo-jax train` compiles it. As it is one program, where its
time goes is found by compiling its parts one by one and timing these.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import jax
import numpy as np

from benchmarks import worker
from mbpo_jax import config_io
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config
from mbpo_jax.training import devices, loop
from mbpo_jax.training.compiled import compile_program
from mbpo_jax.training.group import group_of
from mbpo_jax.training.layout import set_up
from mbpo_jax.training.runs_axis import map_runs
from mbpo_jax.training.state import TrainState
from mbpo_jax.types import Env

Part = Callable[[jax.Array, Config, TrainState], TrainState]


def make_parts(env: Env) -> dict[str, Part]:
    """Return the parts of a compiled step, each for one run; one after the other they are it."""

    def fit(env_steps: jax.Array, config: Config, state: TrainState) -> TrainState:
        model = make_algorithm(env, config).model
        assert model is not None
        key, fit_key = jax.random.split(state.key)
        fitted, _ = model.fit(fit_key, state.model, state.replay, env_steps)
        return state._replace(key=key, model=fitted)

    def rollouts(env_steps: jax.Array, config: Config, state: TrainState) -> TrainState:
        agent, experience, model, _ = make_algorithm(env, config)
        assert model is not None
        assert agent.policy is not None
        key, data_key = jax.random.split(state.key)
        view, policy = model.ready(state.model), agent.policy(state.agent)
        data, _ = experience.refresh(
            data_key, state.experience, view, state.replay, policy, env_steps
        )
        return state._replace(key=key, experience=data)

    def environment(env_steps: jax.Array, config: Config, state: TrainState) -> TrainState:
        del env_steps
        algorithm = make_algorithm(env, config)

        def interact(state: TrainState, _) -> tuple[TrainState, None]:
            key, action_key, env_key = jax.random.split(state.key, 3)
            state, action, log_prob = loop.act(algorithm, action_key, state, ())
            state, *_ = loop.interact(env, algorithm, env_key, state, action, log_prob)
            return state._replace(key=key), None

        return jax.lax.scan(interact, state, None, config.steps_per_fit)[0]

    def agent(env_steps: jax.Array, config: Config, state: TrainState) -> TrainState:
        del env_steps
        algorithm = make_algorithm(env, config)

        def update(state: TrainState, _) -> tuple[TrainState, None]:
            key, update_key = jax.random.split(state.key)
            state, _ = loop.update_agent(algorithm, update_key, state, ())
            return state._replace(key=key), None

        return jax.lax.scan(update, state, None, config.steps_per_fit)[0]

    return {"fit": fit, "rollouts": rollouts, "environment": environment, "agent": agent}


class Training:
    """All runs of a configuration after their random steps, which go on when they are asked to."""

    def __init__(self, config: Config) -> None:
        """Compile, and make the random steps."""
        self._setup = set_up(group_of(config))
        self._compiled = compile_program(self._setup)
        self._state, self._env_steps = self._compiled.start(), config.random_steps
        jax.block_until_ready(self._state)

    def cycle(self, env_steps: int) -> dict[str, float]:
        """Call the compiled step once.

        Returns:
          The seconds it took and the gradient steps of the fit, averaged over runs.
        """
        assert env_steps == self._setup.group.config.steps_per_fit
        began = time.perf_counter()
        self._state, metrics = self._compiled.step(self._env_steps, self._state)
        jax.block_until_ready(self._state)
        seconds = time.perf_counter() - began
        self._env_steps += env_steps
        return {
            "seconds": seconds,
            "fit_steps": float(np.mean(metrics["model/gradient_steps"])),
        }

    def parts(self, repeats: int) -> dict[str, float]:
        """Compile the parts and return the seconds that each takes on its own."""
        config, env_steps, seconds = self._setup.runs.config, np.int32(self._env_steps), {}
        for name, part in make_parts(self._setup.env).items():
            mapped = jax.jit(map_runs(part, self._setup.mesh), donate_argnums=2)
            lowered = mapped.lower(env_steps, config, self._state)
            compiled = lowered.compile(devices.compiler_options())
            began = time.perf_counter()
            for _ in range(repeats):
                self._state = compiled(env_steps, config, self._state)
            jax.block_until_ready(self._state)
            seconds[name] = (time.perf_counter() - began) / repeats
        return seconds


def main() -> None:
    """Compile and serve."""
    request = json.loads(sys.argv[1])
    settings = config_io.nested(request["settings"])
    config = config_io.apply(Config(), settings, "the comparison's settings")
    devices.use_host_devices(config.num_seeds)
    training = Training(config)
    packages = ("jax", "gymnasium", "mujoco", "numpy")
    worker.serve(
        {name: version(name) for name in packages} | {"devices": devices.describe_devices()},
        {"cycle": training.cycle, "parts": training.parts},
    )


if __name__ == "__main__":
    main()
