"""The compiled step: everything that happens between two looks by the host.

    fit the model -> make model data -> F x {one environment step, G updates} -> diagnose

Model data may be made anew at even distances between two fits.

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
from mbpo_jax.training import tracking
from mbpo_jax.trees import all_finite
from mbpo_jax.types import Algorithm, Env, EnvState, Metrics, PyTree


class TrainState(NamedTuple):
    """Everything that is carried from step to step, and all that a checkpoint has to hold.

    Attributes:
      key: the run's only key.
      env: the environment.
      replay: real transitions.
      model: the dynamics model's state, () without one.
      experience: model transitions, () without any.
      agent: parameters and optimizers, tables.
      memory: what the agent carries through an episode.
      episode_return: float32, return of the unfinished episode.
      healthy: bool; False once any parameter became non-finite. The run is then frozen.
    """

    key: jax.Array
    env: EnvState
    replay: ReplayState
    model: PyTree
    experience: PyTree
    agent: PyTree
    memory: PyTree
    episode_return: jax.Array
    healthy: jax.Array


class Learned(NamedTuple):
    """What a run has learned: all that is trained.

    Attributes:
      model: state of its model, () without one.
      agent: state of its agent.
    """

    model: PyTree
    agent: PyTree


class Program(NamedTuple):
    """The functions that the host compiles, each for one run.

    Attributes:
      init: `(Config, key) -> TrainState`.
      collect: `(Config, TrainState) -> TrainState`, the random steps at the start.
      step: `(Config, env_steps, TrainState) -> (TrainState, Metrics)`, the compiled step;
        `env_steps` counts the environment steps before it and is the same for all runs.
      evaluate: `(Config, key, TrainState) -> (returns, lengths)`, each `[eval_episodes]`.
      measure: `(Config, key, TrainState) -> inner products of gradients`, see `training.tracking`.
    """

    init: Callable[[Config, jax.Array], TrainState]
    collect: Callable[[Config, TrainState], TrainState]
    step: Callable[[Config, jax.Array, TrainState], tuple[TrainState, Metrics]]
    evaluate: Callable[[Config, jax.Array, TrainState], tuple[jax.Array, jax.Array]]
    measure: Callable[[Config, jax.Array, TrainState], tracking.Found]


def mean_metrics(metrics: Metrics) -> Metrics:
    """Average metrics that were stacked by scans."""
    return {name: jnp.mean(value) for name, value in metrics.items()}


def interact(
    env: Env, algorithm: Algorithm, key: jax.Array, state: TrainState, action: jax.Array, log_prob
):
    """Take one environment step and store it, unless it is not finite.

    Args:
      env: the environment.
      algorithm: says what is stored.
      key: a key, used up.
      state: of the run.
      action: `[A]`.
      log_prob: the action's log-density, or () if the algorithm does not keep it.

    Returns:
      The new state, the reward, NaN for a transition that is left out, and the return of the
      episode if it ended with this step as it should, else NaN.
    """
    needs_simulator = algorithm.model is not None and algorithm.model.needs_simulator
    simulator = state.env.simulator if needs_simulator else ()
    env_state, transition = step_or_reset(env, key, state.env, action)
    transition = transition._replace(log_prob=log_prob)
    finite = all_finite(transition)
    row = jax.tree.map(lambda x: x[None], transition._replace(simulator=simulator))
    total = state.episode_return + transition.reward
    state = state._replace(
        env=env_state,
        replay=replay.add(state.replay, row, finite[None]),
        episode_return=jnp.where(env_state.done, 0.0, total),
    )
    reward = jnp.where(finite, transition.reward, jnp.nan)
    return state, reward, jnp.where(env_state.done & finite, total, jnp.nan)


def act(algorithm: Algorithm, key: jax.Array, state: TrainState, view: PyTree):
    """Let the agent choose an action, and begin anew what it carries if an episode ended.

    Returns:
      The new state, the action, and its log-density, or () if the algorithm does not keep it.
    """
    agent = algorithm.agent
    memory = jax.tree.map(
        lambda fresh, old: jnp.where(state.env.done, fresh, old), agent.begin(), state.memory
    )
    action, memory = agent.act(key, state.agent, view, memory, state.env, True)
    log_prob = ()
    if algorithm.keeps_log_prob:
        assert agent.log_prob is not None
        log_prob = agent.log_prob(state.agent, state.env.observation, action)
    return state._replace(memory=memory), action, log_prob


def update_agent(
    algorithm: Algorithm, key: jax.Array, state: TrainState, view: PyTree
) -> tuple[TrainState, Metrics]:
    """Make the G updates that follow one environment step."""
    agent = algorithm.agent
    if agent.updates_per_step == 0:
        return state, {}
    batch_key, update_key = jax.random.split(key)
    shape = (agent.updates_per_step, agent.batch_size)
    batches = algorithm.experience.sample(batch_key, state.experience, state.replay, shape)

    def update(agent_state, inputs):
        return agent.update(inputs[0], agent_state, view, inputs[1])

    keys = jax.random.split(update_key, agent.updates_per_step)
    agent_state, metrics = jax.lax.scan(update, state.agent, (keys, batches))
    return state._replace(agent=agent_state), mean_metrics(metrics)


def make_data(
    algorithm: Algorithm, key: jax.Array, state: TrainState, view: PyTree, env_steps: jax.Array
) -> tuple[TrainState, Metrics]:
    """Make model data by the policy as it is now."""
    policy = algorithm.agent.policy(state.agent) if algorithm.agent.policy else None
    experience, metrics = algorithm.experience.refresh(
        key, state.experience, view, state.replay, policy, env_steps
    )
    return state._replace(experience=experience), metrics


def refresh(
    algorithm: Algorithm, key: jax.Array, state: TrainState, env_steps: jax.Array
) -> tuple[TrainState, PyTree, Metrics]:
    """Fit the model, make its data, and let the agent take from both what it takes once.

    Returns:
      The new state, the model's view, and metrics.
    """
    fit_key, data_key = jax.random.split(key)
    model, view, metrics = state.model, (), {}
    if algorithm.model is not None:
        model, metrics = algorithm.model.fit(fit_key, state.model, state.replay, env_steps)
        view = algorithm.model.ready(model)
    agent = algorithm.agent.observe(state.agent, state.replay)
    state, data_metrics = state._replace(model=model, agent=agent), {}
    # Where data are made several times, the first time is yet to come, but critics learn now.
    if algorithm.experience.refreshes == 1 or algorithm.agent.critic_updates:
        state, data_metrics = make_data(algorithm, data_key, state, view, env_steps)
    if algorithm.agent.critic_updates:
        state = update_critics(algorithm, jax.random.fold_in(key, 2), state, view)
    return state, view, metrics | data_metrics


def update_critics(
    algorithm: Algorithm, key: jax.Array, state: TrainState, view: PyTree
) -> TrainState:
    """Make the updates of the critics alone that follow a fit."""
    agent, alone = algorithm.agent, algorithm.agent.update_critics
    assert alone is not None
    batch_key, update_key = jax.random.split(key)
    shape = (agent.critic_updates, agent.batch_size)
    batches = algorithm.experience.sample(batch_key, state.experience, state.replay, shape)

    def update(agent_state, inputs):
        return alone(inputs[0], agent_state, view, inputs[1]), None

    keys = jax.random.split(update_key, agent.critic_updates)
    return state._replace(agent=jax.lax.scan(update, state.agent, (keys, batches))[0])


def catch_up(
    algorithm: Algorithm, key: jax.Array, state: TrainState, span: int, env_steps: int
) -> TrainState:
    """Make the updates that belong to the random steps.

    Args:
      algorithm: the assembly.
      key: a key, used up.
      state: after the random steps.
      span: environment steps between two makings of model data, whose updates are made here.
      env_steps: the random steps.
    """
    before = state
    state, view, _ = refresh(algorithm, jax.random.fold_in(key, 0), state, jnp.int32(env_steps))

    def update(state, key):
        return update_agent(algorithm, key, state, view)[0], None

    def one_span(state, key):
        data_key, updates_key = jax.random.split(key)
        state, _ = make_data(algorithm, data_key, state, view, jnp.int32(env_steps))
        return jax.lax.scan(update, state, jax.random.split(updates_key, span))[0], None

    keys = jax.random.split(jax.random.fold_in(key, 1), -(-env_steps // span))
    return freeze_if_diverged(before, jax.lax.scan(one_span, state, keys)[0], {})[0]


def make_program(env: Env) -> Program:
    """Build the training program of an environment.

    The parts are assembled while JAX traces, because the numbers of the configuration are traced.
    """

    def init(config: Config, key: jax.Array) -> TrainState:
        algorithm = make_algorithm(env, config)
        model = algorithm.model
        key, env_key, model_key, agent_key = jax.random.split(key, 4)
        env_state = env.reset(env_key)
        return TrainState(
            key=key,
            env=env_state,
            replay=replay.init(
                config.replay_rows,
                env.spec.observation_size,
                env.spec.action_size,
                log_prob=algorithm.keeps_log_prob,
                simulator=env_state.simulator if model and model.needs_simulator else (),
            ),
            model=model.init(model_key) if model else (),
            experience=algorithm.experience.init(),
            agent=algorithm.agent.init(agent_key),
            memory=algorithm.agent.begin(),
            episode_return=jnp.float32(0),
            healthy=jnp.bool_(True),
        )

    def collect(config: Config, state: TrainState) -> TrainState:
        algorithm = make_algorithm(env, config)
        # The density of a uniform action in [-1, 1].
        density = jnp.float32(-env.spec.action_size * jnp.log(2.0))
        log_prob = density if algorithm.keeps_log_prob else ()

        def step(state, key):
            action_key, env_key = jax.random.split(key)
            action = random_action(action_key, env.spec.action_size)
            return interact(env, algorithm, env_key, state, action, log_prob)[0], None

        key, steps_key = jax.random.split(state.key)
        keys = jax.random.split(steps_key, config.random_steps)
        state = jax.lax.scan(step, state._replace(key=key), keys)[0]
        if not algorithm.agent.catches_up:
            return state
        key, updates_key = jax.random.split(state.key)
        span = config.steps_per_fit // algorithm.experience.refreshes
        state = state._replace(key=key)
        return catch_up(algorithm, updates_key, state, span, config.random_steps)

    def step(config: Config, env_steps: jax.Array, state: TrainState):
        algorithm = make_algorithm(env, config)
        key, refresh_key, steps_key = jax.random.split(state.key, 3)
        start = state._replace(replay=replay.without_nonfinite(state.replay))
        taken_out = state.replay.size - start.replay.size
        start, view, refresh_metrics = refresh(algorithm, refresh_key, start, env_steps)

        def env_step(state, key):
            action_key, env_key, update_key = jax.random.split(key, 3)
            state, action, log_prob = act(algorithm, action_key, state, view)
            state, reward, finished = interact(env, algorithm, env_key, state, action, log_prob)
            state, metrics = update_agent(algorithm, update_key, state, view)
            return state, (metrics, reward, finished)

        refreshes, data_metrics = algorithm.experience.refreshes, {}
        span = config.steps_per_fit // refreshes

        def one_span(state, inputs):
            key, first = inputs
            data_key, span_key = jax.random.split(key)
            state, metrics = make_data(algorithm, data_key, state, view, env_steps + first)
            state, found = jax.lax.scan(env_step, state, jax.random.split(span_key, span))
            return state, (found, metrics)

        start = start._replace(key=key)
        if refreshes == 1:
            keys = jax.random.split(steps_key, config.steps_per_fit)
            end, found = jax.lax.scan(env_step, start, keys)
        else:
            keys = jax.random.split(steps_key, refreshes)
            firsts = jnp.arange(refreshes) * span
            end, (found, data_metrics) = jax.lax.scan(one_span, start, (keys, firsts))
        update_metrics, rewards, finished = found
        stored = jnp.sum(~jnp.isnan(rewards), dtype=jnp.int32)
        unseen = end.replay._replace(size=jnp.minimum(end.replay.size, stored))
        metrics = {
            **refresh_metrics,
            **mean_metrics(data_metrics),
            **mean_metrics(update_metrics),
            **(algorithm.model.diagnose(end.model, unseen) if algorithm.model else {}),
            # Where all were stored, the mean of them to the last bit.
            "train/reward": jnp.mean(jnp.nan_to_num(rewards)) * (config.steps_per_fit / stored),
            "train/episode_return": jnp.nanmean(finished),
            "train/nonfinite": taken_out + config.steps_per_fit - stored,
        }
        return freeze_if_diverged(state, end, metrics)

    def evaluate(config: Config, key: jax.Array, state: TrainState):
        play = acting(make_algorithm(env, config), state.model, state.agent)
        return play_episodes(env, *play, key, config.eval_episodes)[:2]

    def measure(config: Config, key: jax.Array, state: TrainState):
        return tracking.measure(env, config, key, state.agent, state.model)

    return Program(init, collect, step, evaluate, measure)


def acting(algorithm: Algorithm, model: PyTree, agent_state: PyTree) -> tuple[Callable, Callable]:
    """Return how an agent acts without exploring: `begin` and `act`, as `play_episodes` takes them.

    Args:
      algorithm: the assembly.
      model: state of its model.
      agent_state: state of its agent.
    """
    agent = algorithm.agent
    view = algorithm.model.ready(model) if algorithm.model else ()

    def act(key: jax.Array, memory: PyTree, env_state: EnvState) -> tuple[jax.Array, PyTree]:
        return agent.act(key, agent_state, view, memory, env_state, False)

    return agent.begin, act


def freeze_if_diverged(
    before: TrainState, after: TrainState, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """Keep the last finite parameters of a run whose parameters became non-finite, for good.

    Only what is trained is put back: the buffers go on, unread, which spares a copy of them.
    """
    healthy = before.healthy & all_finite(learned(after))

    def kept(state: TrainState) -> tuple[PyTree, PyTree, PyTree]:
        return state.agent, state.model, state.experience

    def without_buffers(state: TrainState) -> PyTree:
        return jax.tree.map(lambda x: () if is_buffer(x) else x, kept(state), is_leaf=is_buffer)

    # On a CPU a `where` for each array would have XLA repeat what `healthy` follows from in each of
    # them, which was two fifths of the compiled step.
    chosen = jax.lax.cond(
        healthy,
        lambda new, old: new,
        lambda new, old: old,
        without_buffers(after),
        without_buffers(before),
    )
    agent, model, experience = jax.tree.map(
        lambda new, best: new if is_buffer(new) else best, kept(after), chosen, is_leaf=is_buffer
    )
    after = after._replace(agent=agent, model=model, experience=experience, healthy=healthy)
    return after, {**metrics, "train/healthy": healthy.astype(jnp.float32)}


def is_buffer(node: PyTree) -> bool:
    """Return whether a node of a state is a replay buffer."""
    return isinstance(node, ReplayState)


def learned(state: TrainState) -> Learned:
    """Return what has been learned."""
    return Learned(state.model, state.agent)
