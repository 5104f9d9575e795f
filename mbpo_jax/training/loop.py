"""The compiled step: everything that happens between two looks by the host.

    fit the model -> branch rollouts -> F x {one environment step, G updates} -> diagnose

Each function here is pure and written for one run; `training.runs_axis` maps it over runs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax import replay
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config
from mbpo_jax.envs.base import play_episodes, random_action, step_or_reset
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import Algorithm, Env, EnvState, Metrics, PyTree


class TrainState(NamedTuple):
    """Everything that is carried from step to step, and all that a checkpoint has to hold.

    Attributes:
      key: the run's only key.
      env: the environment.
      replay: real transitions.
      experience: model and model transitions, if the algorithm has any.
      agent: parameters and optimizers.
      episode_return: float32, return of the unfinished episode.
      healthy: bool; False once any parameter became non-finite. The run is then frozen.
    """

    key: jax.Array
    env: EnvState
    replay: ReplayState
    experience: PyTree
    agent: PyTree
    episode_return: jax.Array
    healthy: jax.Array


class Program(NamedTuple):
    """The functions that the host compiles, each for one run.

    Attributes:
      init: `(Config, key) -> TrainState`.
      collect: `(Config, TrainState) -> TrainState`, the random steps at the start.
      step: `(Config, env_steps, TrainState) -> (TrainState, Metrics)`, the compiled step;
        `env_steps` counts the environment steps before it and is the same for all runs.
      evaluate: `(Config, key, TrainState) -> (returns, lengths)`, each `[eval_episodes]`.
    """

    init: Callable[[Config, jax.Array], TrainState]
    collect: Callable[[Config, TrainState], TrainState]
    step: Callable[[Config, jax.Array, TrainState], tuple[TrainState, Metrics]]
    evaluate: Callable[[Config, jax.Array, TrainState], tuple[jax.Array, jax.Array]]


def replay_capacity(config: Config) -> int:
    """Return how many real transitions are kept: no more than the run makes."""
    return min(config.replay_capacity, config.total_env_steps)


def all_finite(tree: PyTree) -> jax.Array:
    """Return whether every number in the tree is finite."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


def mean_metrics(metrics: Metrics) -> Metrics:
    """Average metrics that were stacked by scans."""
    return {name: jnp.mean(value) for name, value in metrics.items()}


def interact(env: Env, key: jax.Array, state: TrainState, action: jax.Array):
    """Take one environment step and store it.

    Returns:
      The new state and the return of the episode if it ended with this step, else NaN.
    """
    env_state, transition = step_or_reset(env, key, state.env, action)
    total = state.episode_return + transition.reward
    state = state._replace(
        env=env_state,
        replay=replay.add(state.replay, jax.tree.map(lambda x: x[None], transition)),
        episode_return=jnp.where(env_state.done, 0.0, total),
    )
    return state, jnp.where(env_state.done, total, jnp.nan)


def update_agent(
    algorithm: Algorithm, config: Config, key: jax.Array, state: TrainState
) -> tuple[TrainState, Metrics]:
    """Make the G updates that follow one environment step."""
    batch_key, update_key = jax.random.split(key)
    num_updates = config.sac.utd_ratio
    shape = (num_updates, config.sac.batch_size)
    batches = algorithm.experience.sample(batch_key, state.experience, state.replay, shape)

    def update(agent, inputs):
        return algorithm.agent.update(inputs[0], agent, inputs[1])

    keys = jax.random.split(update_key, num_updates)
    agent, metrics = jax.lax.scan(update, state.agent, (keys, batches))
    return state._replace(agent=agent), mean_metrics(metrics)


def make_program(env: Env) -> Program:
    """Build the training program of an environment.

    The parts are assembled while JAX traces, because the numbers of the configuration are traced.
    """

    def init(config: Config, key: jax.Array) -> TrainState:
        algorithm = make_algorithm(env.spec, config)
        key, env_key, experience_key, agent_key = jax.random.split(key, 4)
        sizes = env.spec.observation_size, env.spec.action_size
        return TrainState(
            key=key,
            env=env.reset(env_key),
            replay=replay.init(replay_capacity(config), *sizes),
            experience=algorithm.experience.init(experience_key),
            agent=algorithm.agent.init(agent_key),
            episode_return=jnp.float32(0),
            healthy=jnp.bool_(True),
        )

    def collect(config: Config, state: TrainState) -> TrainState:
        def step(state, key):
            action_key, env_key = jax.random.split(key)
            action = random_action(action_key, env.spec.action_size)
            return interact(env, env_key, state, action)[0], None

        key, steps_key = jax.random.split(state.key)
        keys = jax.random.split(steps_key, config.random_steps)
        return jax.lax.scan(step, state._replace(key=key), keys)[0]

    def step(config: Config, env_steps: jax.Array, state: TrainState):
        algorithm = make_algorithm(env.spec, config)
        agent = algorithm.agent
        key, refresh_key, steps_key = jax.random.split(state.key, 3)
        experience, refresh_metrics = algorithm.experience.refresh(
            refresh_key,
            state.experience,
            state.replay,
            lambda key, observation: agent.sample_action(key, state.agent, observation),
            env_steps,
        )

        def env_step(state, key):
            action_key, env_key, update_key = jax.random.split(key, 3)
            action = agent.sample_action(action_key, state.agent, state.env.observation)
            state, finished_return = interact(env, env_key, state, action)
            state, metrics = update_agent(algorithm, config, update_key, state)
            return state, (metrics, finished_return)

        keys = jax.random.split(steps_key, config.steps_per_fit)
        start = state._replace(key=key, experience=experience)
        end, (update_metrics, finished) = jax.lax.scan(env_step, start, keys)
        metrics = {
            **refresh_metrics,
            **mean_metrics(update_metrics),
            **algorithm.experience.diagnose(end.experience, end.replay),
            "train/episode_return": jnp.nanmean(finished),
        }
        return freeze_if_diverged(state, end, metrics)

    def evaluate(config: Config, key: jax.Array, state: TrainState):
        agent = make_algorithm(env.spec, config).agent

        def policy(_, observation):
            return agent.mode_action(state.agent, observation)

        return play_episodes(env, policy, key, config.eval_episodes)

    return Program(init, collect, step, evaluate)


def freeze_if_diverged(
    before: TrainState, after: TrainState, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """Keep the last finite parameters of a run whose parameters became non-finite, for good.

    Only what is trained is put back: the buffers go on, unread, which spares a copy of them.
    """
    healthy = before.healthy & all_finite(trained(after))

    def keep(old: PyTree, new: PyTree) -> PyTree:
        return new if is_buffer(new) else jnp.where(healthy, new, old)

    agent, experience = jax.tree.map(
        keep, (before.agent, before.experience), (after.agent, after.experience), is_leaf=is_buffer
    )
    metrics = {**metrics, "train/healthy": healthy.astype(jnp.float32)}
    return after._replace(agent=agent, experience=experience, healthy=healthy), metrics


def is_buffer(node: PyTree) -> bool:
    """Return whether a node of a state is a replay buffer."""
    return isinstance(node, ReplayState)


def trained(state: TrainState) -> PyTree:
    """Return all that is trained: agent and experience, with None in the place of buffers."""
    return jax.tree.map(
        lambda x: None if is_buffer(x) else x, (state.agent, state.experience), is_leaf=is_buffer
    )
