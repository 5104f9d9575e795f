"""Our side of the measured work, and the arithmetic in it, at Hopper's sizes (`benchmarks.worker`).

Each workload is the function that training compiles, not a copy of it.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import optax

from benchmarks import worker
from mbpo_jax import replay
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config, EnsembleConfig, EnvConfig, FitConfig, RolloutConfig, SACConfig
from mbpo_jax.envs.termination import brax_rule
from mbpo_jax.loops import greatest_of_runs
from mbpo_jax.models import fit, stopping
from mbpo_jax.models.dataset import Dataset, draw_member_rows, make_dataset
from mbpo_jax.models.ensemble import Ensemble, EnsembleState, make_ensemble
from mbpo_jax.replay import ReplayState
from mbpo_jax.training.devices import compiler_options
from mbpo_jax.training.loop import update_agent
from mbpo_jax.training.state import TrainState
from mbpo_jax.types import Algorithm, Env, EnvSpec, EnvState, Transition

SPEC = EnvSpec("hopper", worker.OBSERVATION_SIZE, worker.ACTION_SIZE, 1000, 1, 0.008)


def _unused(*_: object) -> NoReturn:
    raise NotImplementedError("no workload steps the environment")


ENV = Env(SPEC, _unused, _unused, terminated=brax_rule(SPEC.name, "generalized"))
CONFIG = Config(
    algorithm="sac",
    env=EnvConfig(name="hopper"),
    sac=SACConfig(
        utd_ratio=20, batch_size=worker.BATCH_SIZE, hidden_sizes=(worker.SAC_HIDDEN_SIZE,) * 2
    ),
    ensemble=EnsembleConfig(
        num_members=worker.NUM_MEMBERS,
        num_elites=worker.NUM_ELITES,
        hidden_sizes=(worker.MODEL_HIDDEN_SIZE,) * worker.MODEL_NUM_LAYERS,
    ),
    fit=FitConfig(batch_size=worker.BATCH_SIZE, holdout_ratio=worker.HOLDOUT_RATIO),
    rollout=RolloutConfig(),
)
# One fit starts all rollouts, and the model transitions of an epoch are kept.
BRANCHED_CONFIG = dataclasses.replace(
    CONFIG,
    algorithm="mbpo",
    steps_per_fit=worker.NUM_ROLLOUTS // CONFIG.rollout.rollouts_per_step,
    epoch_length=worker.ROLLOUT_BUFFER_SIZE // CONFIG.rollout.rollouts_per_step,
)


OPTIMIZER = optax.adam(CONFIG.fit.learning_rate)


class Workload(NamedTuple):
    """Work that can be compiled and repeated.

    Attributes:
      fn: a pure function `carry -> carry`.
      carry: what it starts from.
      units: units of work in one call.
      flops: floating-point operations of the matrix products in one unit.
    """

    fn: Callable[[Any], Any]
    carry: Any
    units: int
    flops: float


def filled_buffer(capacity: int | None = None) -> ReplayState:
    """Return a buffer that holds the transitions both sides of a comparison are given."""
    data = worker.random_transitions()
    batch = Transition(
        observation=jnp.asarray(data.observation),
        action=jnp.asarray(data.action),
        reward=jnp.asarray(data.reward),
        discount=1.0 - jnp.asarray(data.terminated, jnp.float32),
        next_observation=jnp.asarray(data.next_observation),
    )
    rows = batch.reward.shape[0]
    return replay.add(replay.init(capacity or rows, SPEC.observation_size, SPEC.action_size), batch)


def mlp_weights(input_size: int, hidden_sizes: tuple[int, ...], output_size: int) -> int:
    """Count the entries of a perceptron's kernels: half the operations of a row's forward pass."""
    sizes = (input_size, *hidden_sizes, output_size)
    return sum(a * b for a, b in itertools.pairwise(sizes))


def policy_weights() -> int:
    return mlp_weights(SPEC.observation_size, CONFIG.sac.hidden_sizes, 2 * SPEC.action_size)


def member_weights() -> int:
    inputs, outputs = SPEC.observation_size + SPEC.action_size, 2 * (1 + SPEC.observation_size)
    return mlp_weights(inputs, CONFIG.ensemble.hidden_sizes, outputs)


def sac_flops() -> float:
    """Count an update's operations, in forward passes of policy and critics.

    Critics: forward on the targets, forward and two products backward on the batch. Policy: forward
    for the targets, forward and two backward for its loss, which also goes forward and once
    backward through the critics.
    """
    inputs = SPEC.observation_size + SPEC.action_size
    critics = CONFIG.sac.num_critics * mlp_weights(inputs, CONFIG.sac.hidden_sizes, 1)
    return 2.0 * CONFIG.sac.batch_size * (critics * (1 + 3 + 2) + policy_weights() * (1 + 3))


def train_state(algorithm: Algorithm, env_state: EnvState) -> TrainState:
    """Return the state of a run without a model whose buffer is full."""
    return TrainState(
        key=jax.random.key(0),
        env=env_state,
        replay=filled_buffer(),
        model=(),
        experience=(),
        agent=algorithm.agent.init(jax.random.key(1)),
        memory=(),
        episode_return=jnp.float32(0),
        healthy=jnp.bool_(True),
    )


def sac_update() -> Workload:
    """Return the 20 updates that follow an environment step, their batches' sampling included."""
    algorithm = make_algorithm(ENV, CONFIG)
    observation = jnp.zeros(SPEC.observation_size)
    state = train_state(algorithm, EnvState((), observation, jnp.int32(0), jnp.bool_(False)))

    def fn(state: TrainState) -> TrainState:
        key, update_key = jax.random.split(state.key)
        return update_agent(algorithm, update_key, state._replace(key=key), ())[0]

    return Workload(fn, state, CONFIG.sac.utd_ratio, sac_flops())


def ensemble_and_data() -> tuple[Ensemble, EnsembleState, Dataset]:
    """Return the ensemble, its first state, and what a fit of it reads."""
    ensemble = make_ensemble(SPEC, CONFIG.ensemble, OPTIMIZER, learned_termination=False)
    dataset, *_ = make_dataset(
        jax.random.key(1), ensemble, filled_buffer(), CONFIG.fit, normalize_targets=False
    )
    return ensemble, ensemble.init(jax.random.key(0)), dataset


def ensemble_step() -> Workload:
    """Return an epoch of the fit: gradient steps of all members on bootstrapped minibatches."""
    ensemble, state, dataset = ensemble_and_data()
    # A hold-out is at most 5,000 rows; the comparison's is a plain fifth. Whole batches.
    num_train = int((1 - worker.HOLDOUT_RATIO) * worker.NUM_TRANSITIONS)
    steps = num_train // CONFIG.fit.batch_size
    rows = draw_member_rows(
        jax.random.key(3), dataset.split, CONFIG.ensemble.num_members, bootstrap=True
    )

    def fn(carry):
        training, key, dataset, rows, num_train = carry
        gradient_step = fit.make_gradient_step(
            ensemble, OPTIMIZER, dataset, CONFIG.fit, CONFIG.ensemble.bound_penalty
        )
        # The same for all runs, as in training.
        num_train = jnp.int32(greatest_of_runs(num_train))
        key, epoch_key = jax.random.split(key)
        training, _ = stopping.train_epoch(
            epoch_key, training, gradient_step, rows, num_train, CONFIG.fit.batch_size
        )
        return training, key, dataset, rows, num_train

    # The number of rows is traced, as in training.
    num_train = jnp.int32(steps * CONFIG.fit.batch_size)
    carry = (state.params, state.optimizer), jax.random.key(2), dataset, rows, num_train
    flops = 2.0 * 3 * CONFIG.fit.batch_size * CONFIG.ensemble.num_members * member_weights()
    return Workload(fn, carry, steps, flops)


def model_rollout() -> Workload:
    """Return 100,000 branched rollouts of length 1 and the storing of their transitions."""
    agent, experience, model, _ = make_algorithm(ENV, BRANCHED_CONFIG)
    assert model is not None
    assert agent.policy is not None
    make_policy = agent.policy

    def fn(carry):
        key, agent_state, model_state, real, buffer, env_steps = carry
        key, refresh_key = jax.random.split(key)
        view, policy = model.ready(model_state), make_policy(agent_state)
        buffer, _ = experience.refresh(refresh_key, buffer, view, real, policy, env_steps)
        return key, agent_state, model_state, real, buffer, env_steps

    carry = (
        jax.random.key(2),
        agent.init(jax.random.key(1)),
        model.init(jax.random.key(0)),
        filled_buffer(),
        experience.init(),
        # Traced, as in training: the length of the rollouts follows from it.
        jnp.int32(BRANCHED_CONFIG.random_steps),
    )
    return Workload(fn, carry, worker.NUM_ROLLOUTS, 2.0 * (member_weights() + policy_weights()))


WORKLOADS = {
    "sac_update": sac_update,
    "ensemble_step": ensemble_step,
    "rollout": model_rollout,
}


class Timer:
    """A compiled workload that keeps its state from measurement to measurement."""

    def __init__(self, workload: Workload) -> None:
        """Compile the workload; the state it carries is donated from call to call."""
        self.workload = workload
        began = time.perf_counter()
        jitted = jax.jit(workload.fn, donate_argnums=0)
        self._fn = jitted.lower(workload.carry).compile(compiler_options())
        self.compile_seconds = time.perf_counter() - began
        self._carry = jax.tree.map(jnp.copy, workload.carry)

    def __call__(self, repeats: int) -> float:
        """Return seconds per unit over at least `repeats` units."""
        calls = max(1, round(repeats / self.workload.units))
        began = time.perf_counter()
        for _ in range(calls):
            self._carry = self._fn(self._carry)
        jax.block_until_ready(self._carry)
        return (time.perf_counter() - began) / (calls * self.workload.units)
