"""What the loop carries between agent, model and environment, and what it stores of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import replay
from mbpo_jax.agents.sac import make_sac
from mbpo_jax.algorithms.parts import replay_experience
from mbpo_jax.config import Config, SACConfig
from mbpo_jax.envs.probes import make_probe
from mbpo_jax.envs.system import System, make_system_env
from mbpo_jax.models.oracle import make_oracle
from mbpo_jax.training import loop
from mbpo_jax.types import Agent, Algorithm, DynamicsModel, Point
from tests.programs import collected

RANDOM_STEPS, STEPS = 3, 10
CONFIG = Config(
    algorithm="sac",
    total_env_steps=53,
    random_steps=RANDOM_STEPS,
    steps_per_fit=STEPS,
    epoch_length=STEPS,
    eval_every=STEPS,
    eval_episodes=20,
    checkpoint_every=STEPS,
    sac=SACConfig(utd_ratio=1, batch_size=4, hidden_sizes=(4,)),
)

# The observation counts up from -2, ..., 2 and an episode terminates beyond 2.5, after 1 to 5
# steps, of which the time limit allows 4. The reward is the action.
TIME_LIMIT = 4
COUNTDOWN = make_system_env(
    "countdown",
    make_probe(
        lambda observation, action: action,
        initial=lambda key: jax.random.randint(key, (1,), -2, 3).astype(jnp.float32),
        limit=2.5,
    ),
    TIME_LIMIT,
)

# Two actions, and a clock that is not observed.
HIDDEN_CLOCK = make_system_env(
    "hidden_clock",
    System(
        observation_size=1,
        action_size=2,
        dt=1.0,
        initial=lambda key: jnp.concatenate([jax.random.normal(key, (1,)), jnp.zeros(1)]),
        dynamics=lambda key, state, action: state + jnp.array([0.1, 1.0]),
        reward=lambda state, action, following: jnp.sum(action),
        observe=lambda state: state[:1],
    ),
    TIME_LIMIT,
)


def unused(*_):
    raise AssertionError("an agent that only plans is not updated")


def planner(act, begin=lambda: ()) -> Agent:
    """Make an agent that learns nothing."""
    return Agent(lambda key: (), begin, act, unused, updates_per_step=0, batch_size=1)


def counter() -> Agent:
    """Act by a tenth of the number of actions before in the episode; by minus that if tested."""

    def act(key, state, view, memory, env, explore):
        return jnp.full(1, (0.1 if explore else -0.1) * memory), memory + 1

    return planner(act, begin=lambda: jnp.int32(0))


def program_of(monkeypatch, env, **parts) -> loop.Program:
    """Make the program of an algorithm that is put together by hand."""
    algorithm = Algorithm(**{"experience": replay_experience(), **parts})
    monkeypatch.setattr(loop, "make_algorithm", lambda env, config: algorithm)
    return loop.make_program(env)


def trainer(program, config=CONFIG):
    """Compile `(key, chunks) -> (state, each chunk's metrics)`, the random steps included."""
    start = jax.jit(lambda key: collected(program, config, key))
    step = jax.jit(lambda steps, state: program.step(config, steps, state))

    def train(key, chunks=2):
        state, all_metrics = start(key), []
        for chunk in range(chunks):
            state, metrics = step(jnp.int32(config.random_steps + chunk * STEPS), state)
            all_metrics.append(metrics)
        return state, all_metrics

    return train


def rows_of(state):
    rows, valid = replay.newest(state.replay, int(state.replay.size))
    assert valid.all()
    return jax.tree.map(np.asarray, rows)


def steps_in_episode(rows):
    """Return the number of each row's step in its episode, from 0."""
    steps = []
    for i, discount in enumerate(rows.discount):
        ended = i == 0 or steps[-1] == TIME_LIMIT - 1 or rows.discount[i - 1] == 0.0
        steps.append(0 if ended else steps[-1] + 1)
        assert steps[-1] < TIME_LIMIT, discount
    return np.array(steps)


def test_memory_begins_anew_with_each_episode_and_lasts_through_it(monkeypatch, key):
    """An episode that the random steps began it meets without a memory."""
    train = trainer(program_of(monkeypatch, COUNTDOWN, agent=counter()))
    met = set()
    for run_key in jax.random.split(key, 4):
        state, _ = train(run_key)
        rows = rows_of(state)
        steps = steps_in_episode(rows)
        expected = steps[RANDOM_STEPS:].copy()
        under_way = np.cumsum(expected == 0) == 0
        expected[under_way] = np.arange(np.sum(under_way))
        np.testing.assert_allclose(rows.action[RANDOM_STEPS:, 0], 0.1 * expected, atol=1e-6)
        assert int(state.memory) == expected[-1] + 1
        last = np.append(steps[1:] == 0, False)
        met |= {"termination" if d == 0.0 else "time limit" for d in rows.discount[last]}
        met |= {"begun by random steps"} if steps[RANDOM_STEPS] > 0 else set()
        met |= {"across two chunks"} if steps[RANDOM_STEPS + STEPS] > 0 else set()
    assert met == {"termination", "time limit", "begun by random steps", "across two chunks"}


def test_each_episode_of_an_evaluation_has_a_memory_of_its_own(monkeypatch, key):
    """Played without exploring, an episode of n steps earns -0.1 (0 + 1 + ... + n - 1)."""
    program = program_of(monkeypatch, COUNTDOWN, agent=counter())
    init_key, play_key = jax.random.split(key)
    state = program.init(CONFIG, init_key)
    # What the training's episode carries is of no concern.
    state = state._replace(memory=jnp.int32(7))
    with jax.debug_key_reuse(False):
        returns, lengths = program.evaluate(CONFIG, play_key, state)
    np.testing.assert_allclose(returns, -0.1 * lengths * (lengths - 1) / 2, atol=1e-6)
    np.testing.assert_array_equal(np.unique(lengths), [1, 2, 3, 4])


def fit_counter() -> DynamicsModel:
    """Count the fits; the view is a tenth of their number."""
    return DynamicsModel(
        num_members=1,
        needs_simulator=False,
        init=lambda key: jnp.float32(0),
        fit=lambda key, state, real, env_steps: (state + 1.0, {"model/fitted_at": env_steps}),
        ready=lambda state: 0.1 * state,
        start=lambda observation, simulator: Point(observation),
        follow=unused,
        step=unused,
        diagnose=lambda state, real: {"model/fits": state, "model/rows": real.size},
    )


def test_an_agent_acts_by_the_newest_model_in_training_and_in_evaluation(monkeypatch, key):
    def act(key, state, view, memory, env, explore):
        return jnp.full(1, view), memory

    program = program_of(monkeypatch, COUNTDOWN, agent=planner(act), model=fit_counter())
    train_key, play_key = jax.random.split(key)
    state, metrics = trainer(program)(train_key)
    action = rows_of(state).action[RANDOM_STEPS:, 0]
    np.testing.assert_allclose(action, np.repeat([0.1, 0.2], STEPS), rtol=1e-6)
    assert [int(m["model/fitted_at"]) for m in metrics] == [RANDOM_STEPS, RANDOM_STEPS + STEPS]
    # Judged after the steps, on what they made.
    assert [int(m["model/fits"]) for m in metrics] == [1, 2]
    assert [int(m["model/rows"]) for m in metrics] == [STEPS, STEPS]
    with jax.debug_key_reuse(False):
        returns, lengths = program.evaluate(CONFIG, play_key, state)
    np.testing.assert_allclose(returns, 0.2 * lengths, rtol=1e-5)


def test_no_updates_are_made_for_an_agent_that_only_plans(monkeypatch, key):
    program = program_of(monkeypatch, COUNTDOWN, agent=counter())
    state, metrics = trainer(program)(key, chunks=1)
    assert state.agent == ()
    names = ("reward", "episode_return", "nonfinite", "healthy")
    assert set(metrics[0]) == {f"train/{name}" for name in names}
    assert bool(state.healthy)


def resting_sac(env) -> Agent:
    """Make SAC without updates, so that its policy stays as it was."""
    return make_sac(env.spec, CONFIG.sac)._replace(updates_per_step=0)


def test_log_densities_are_stored_if_they_are_asked_for(monkeypatch, key):
    """Of a uniform action in [-1, 1]^2 it is -2 log 2, and of the policy's its own."""
    agent = resting_sac(HIDDEN_CLOCK)
    program = program_of(monkeypatch, HIDDEN_CLOCK, agent=agent, keeps_log_prob=True)
    state, _ = trainer(program)(key)
    rows = rows_of(state)
    np.testing.assert_allclose(rows.log_prob[:RANDOM_STEPS], -2.0 * np.log(2.0), rtol=1e-6)
    expected = agent.log_prob(state.agent, rows.observation, rows.action)
    np.testing.assert_allclose(rows.log_prob[RANDOM_STEPS:], expected[RANDOM_STEPS:], rtol=1e-5)
    assert rows.simulator == ()


def test_simulator_states_are_stored_if_the_model_needs_them(monkeypatch, key):
    """They are of the transitions' beginnings, on the first step of an episode too."""
    model = make_oracle(HIDDEN_CLOCK)
    program = program_of(monkeypatch, HIDDEN_CLOCK, agent=resting_sac(HIDDEN_CLOCK), model=model)
    rows = rows_of(trainer(program)(key)[0])
    assert rows.log_prob == ()
    np.testing.assert_array_equal(rows.simulator[:, :1], rows.observation)
    np.testing.assert_array_equal(rows.simulator[:, 1], steps_in_episode(rows))


@pytest.mark.parametrize("model", [None, fit_counter()])
def test_neither_is_stored_unless_it_is_asked_for(monkeypatch, key, model):
    agent = resting_sac(HIDDEN_CLOCK)
    program = program_of(monkeypatch, HIDDEN_CLOCK, agent=agent, model=model)
    state = jax.eval_shape(lambda key: collected(program, CONFIG, key), key)
    stepped, _ = jax.eval_shape(lambda state: program.step(CONFIG, jnp.int32(3), state), state)
    for data in (state.replay.data, stepped.replay.data):
        assert (data.log_prob, data.simulator) == ((), ())


def test_training_can_begin_without_random_steps(key):
    """MBPO then meets an empty replay buffer: it imagines nothing until the next fit."""
    config = dataclasses.replace(
        CONFIG,
        algorithm="mbpo",
        model="oracle",
        random_steps=0,
        total_env_steps=50,
        rollout=dataclasses.replace(CONFIG.rollout, rollouts_per_step=2),
    )
    program = loop.make_program(HIDDEN_CLOCK)
    before = jax.jit(lambda key: program.init(config, key))(jax.random.clone(key))
    train = trainer(program, config)
    first, _ = train(jax.random.clone(key), chunks=1)
    second, _ = train(key, chunks=2)
    assert [int(state.replay.size) for state in (before, first, second)] == [0, 10, 20]
    assert [int(state.experience.size) for state in (before, first, second)] == [0, 0, 20]
    np.testing.assert_array_equal(steps_in_episode(rows_of(second)), np.arange(20) % TIME_LIMIT)
    assert bool(first.healthy)
    assert first.agent.log_alpha != before.agent.log_alpha
