"""What holds for every algorithm: types, one trace, keys, batches of runs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import ALGORITHMS, Config, actor_critics
from mbpo_jax.envs import make_env
from mbpo_jax.presets import environment_preset
from mbpo_jax.training import loop
from mbpo_jax.types import Agent, Algorithm, DynamicsModel, Env, Experience
from tests.algorithms.switches import with_all_switches
from tests.choice import mostly_exhaustive
from tests.probe_environments import (
    linear_gaussian,
    tiny_config,
)
from tests.programs import collected

pytestmark = pytest.mark.smoke

MODELS = [
    (name, model)
    for name, record in ALGORITHMS.items()
    for model in (("learned", "oracle") if record.has_model else ("learned",))
]
ONE_OF_EACH = (
    "mbpo",
    "dhmbpo",
    "svg",
    "steve",
    "retrace",
    "policy_search",
    "mpc",
    "ilqr",
    "dyna_q",
)
CHOSEN = [("mbpo", "oracle"), *((name, "learned") for name in ONE_OF_EACH)]


@functools.cache
def environment(algorithm: str):
    if ALGORITHMS[algorithm].is_tabular:
        return make_env(environment_preset("maze").env)
    return linear_gaussian(noise=0.05, episode_length=5)


def settings(algorithm: str, model: str) -> Config:
    return dataclasses.replace(tiny_config(), algorithm=algorithm, model=model)


def start(program: loop.Program, config: Config, key: jax.Array) -> loop.TrainState:
    return collected(program, config, key)


def is_key(x) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def numbers(tree):
    """Return arrays of plain numbers, typed keys included."""
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)


def stack(*states):
    """Return copies of the states of several runs, their keys unused, along an axis of runs."""
    return jax.tree.map(
        lambda *x: jnp.stack([jax.random.clone(y) if is_key(y) else y for y in x]), *states
    )


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize(("algorithm", "model"), MODELS)
def test_parts_have_their_types_and_a_step_keeps_the_structure_of_the_state(algorithm, model):
    env, config = environment(algorithm), settings(algorithm, model)
    assembly = make_algorithm(env, config)
    assert isinstance(assembly, Algorithm)
    assert isinstance(assembly.agent, Agent)
    assert isinstance(assembly.experience, Experience)
    assert isinstance(assembly.model, DynamicsModel) == ALGORITHMS[algorithm].has_model
    program = loop.make_program(env)
    state = jax.eval_shape(lambda key: start(program, config, key), jax.random.key(0))
    after, metrics = jax.eval_shape(
        lambda state: program.step(config, jnp.int32(config.random_steps), state), state
    )
    assert isinstance(after, loop.TrainState)
    assert shapes(after) == shapes(state)
    for name, value in metrics.items():
        assert value.shape == (), name
        assert "/" in name
    returns, lengths = jax.eval_shape(
        lambda key, state: program.evaluate(config, key, state), jax.random.key(0), state
    )
    assert returns.shape == lengths.shape == (config.eval_episodes,)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["mpc", "ilqr", "policy_search", "dyna_q"])
def test_what_is_untrained_can_be_evaluated(algorithm):
    """A planner plans through a model then that no data have scaled."""
    config, program = settings(algorithm, "learned"), loop.make_program(environment(algorithm))
    state = jax.jit(lambda key: start(program, config, key))(jax.random.key(0))
    evaluate = jax.jit(lambda key, state: program.evaluate(config, key, state))
    returns, lengths = evaluate(jax.random.key(1), state)
    assert np.isfinite(returns).all()
    assert (lengths >= 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "model"),
    mostly_exhaustive(MODELS, CHOSEN.__contains__),
)
def test_runs_side_by_side_have_the_numbers_of_a_loop_and_the_step_is_traced_once(algorithm, model):
    """Keys are checked for a second use while the single runs train (see `conftest`)."""
    assert_side_by_side_as_alone(environment(algorithm), settings(algorithm, model))


@pytest.mark.exhaustive
def test_the_same_holds_with_all_that_dhmbpo_may_have():
    """With all switches of critics and model, several rollouts a fit, and their truncation."""
    config = with_all_switches(settings("dhmbpo", "learned"))
    assert_side_by_side_as_alone(environment("dhmbpo"), config)


@pytest.mark.parametrize("algorithm", actor_critics())
def test_every_actor_critic_may_have_a_deterministic_policy(algorithm):
    env, config = environment(algorithm), settings(algorithm, "learned")
    sac = dataclasses.replace(config.sac, exploration_noise=0.1)
    config, program = dataclasses.replace(config, sac=sac), loop.make_program(env)
    state = jax.eval_shape(lambda key: start(program, config, key), jax.random.key(0))
    assert state.agent.log_alpha == ()
    after, metrics = jax.eval_shape(
        lambda state: program.step(config, jnp.int32(config.random_steps), state), state
    )
    assert shapes(after) == shapes(state)
    assert "sac/alpha" in metrics


@pytest.mark.parametrize("algorithm", actor_critics())
def test_critics_may_be_updated_alone_whatever_the_algorithm_and_their_values_have_a_range(
    algorithm,
):
    env, config = environment(algorithm), settings(algorithm, "learned")
    sac = dataclasses.replace(config.sac, critic_updates=3, value_range="rewards")
    config, program = dataclasses.replace(config, sac=sac), loop.make_program(env)
    state = jax.eval_shape(lambda key: start(program, config, key), jax.random.key(0))
    after, _ = jax.eval_shape(
        lambda state: program.step(config, jnp.int32(config.random_steps), state), state
    )
    assert shapes(after) == shapes(state)


def assert_side_by_side_as_alone(env: Env, config: Config) -> None:
    program = loop.make_program(env)

    num_traces = 0

    def traced_step(env_steps, state):
        nonlocal num_traces
        num_traces += 1
        return program.step(config, env_steps, state)

    single = jax.jit(traced_step)
    begin = jax.jit(lambda key: start(program, config, key))
    parts = [jnp.int32(part) for part in range(2)] if config.sac.catches_up else []
    catch_up = jax.jit(functools.partial(program.catch_up, config))
    starts = [begin(jax.random.key(seed)) for seed in range(2)]
    together = stack(*starts)
    steps = [jnp.int32(config.random_steps + i * config.steps_per_fit) for i in range(2)]
    ends = []
    for state in starts:
        for part in parts:
            state, _ = catch_up(part, state)
        for env_steps in steps:
            state, metrics = single(env_steps, state)
            assert metrics["train/healthy"] == 1.0
        ends.append(numbers(state))
    assert num_traces == 1
    # Under `vmap` JAX takes the first half of a split key for the whole of it.
    with jax.debug_key_reuse(False):
        batched = jax.jit(jax.vmap(program.step, in_axes=(None, None, 0)))
        catch_up = jax.jit(jax.vmap(program.catch_up, in_axes=(None, None, 0)))
        for part in parts:
            together, _ = catch_up(config, part, together)
        for env_steps in steps:
            together, _ = batched(config, env_steps, together)
    together = numbers(together)
    for run, end in enumerate(ends):
        jax.tree.map(
            lambda a, b, run=run: np.testing.assert_allclose(a[run], b, rtol=2e-3, atol=2e-4),
            together,
            end,
        )
