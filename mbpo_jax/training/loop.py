"""The compiled step: everything that happens before control returns to the host.

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
from mbpo_jax.training import tracking
from mbpo_jax.training.state import TrainState, freeze_if_diverged
from mbpo_jax.trees import all_finite
from mbpo_jax.types import Algorithm, Env, EnvState, Metrics, PyTree


class Program(NamedTuple):
    """The functions that the host compiles, each for one run.

    Attributes:
      init: `(Config, key) -> TrainState`.
      collect: `(Config, TrainState, num_steps=None) -> TrainState`, random steps, `random_steps`
        of them unless a number is given; several calls one after the other are one call of all
        their steps.
      catch_up: `(Config, part, TrainState) -> (TrainState, gradient steps of the model)`, of an
        agent that catches up: as many updates as `step` makes, and before the first of them, where
        `part` is 0, the first fit.
      step: `(Config, env_steps, TrainState) -> (TrainState, Metrics)`, the compiled step;
        `env_steps` counts the environment steps before it and is the same for all runs.
      evaluate: `(Config, key, TrainState) -> (returns, lengths)`, each `[eval_episodes]`.
      measure: `(Config, key, TrainState) -> inner products of gradients`, see `training.tracking`.
    """

    init: Callable[[Config, jax.Array], TrainState]
    collect: Callable[..., TrainState]
    catch_up: Callable[[Config, jax.Array, TrainState], tuple[TrainState, jax.Array]]
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
    return _scan_updates(algorithm, agent.update, agent.updates_per_step, key, state, view)


def update_critics(
    algorithm: Algorithm, key: jax.Array, state: TrainState, view: PyTree
) -> TrainState:
    """Make the updates of the critics alone that follow a fit."""
    agent, alone = algorithm.agent, algorithm.agent.update_critics
    assert alone is not None

    def update(*given):
        return alone(*given), {}

    return _scan_updates(algorithm, update, agent.critic_updates, key, state, view)[0]


def _scan_updates(
    algorithm: Algorithm,
    update: Callable,
    number: int,
    key: jax.Array,
    state: TrainState,
    view: PyTree,
) -> tuple[TrainState, Metrics]:
    """Make updates `(key, agent state, view, batch) -> (agent state, metrics)`, one by one."""
    batch_key, update_key = jax.random.split(key)
    shape = (number, algorithm.agent.batch_size)
    batches = algorithm.experience.sample(batch_key, state.experience, state.replay, shape)

    def one(agent_state, inputs):
        return update(inputs[0], agent_state, view, inputs[1])

    keys = jax.random.split(update_key, number)
    agent_state, metrics = jax.lax.scan(one, state.agent, (keys, batches))
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

    Rows of the buffer that are not finite are taken out first.

    Returns:
      The new state, the model's view, and metrics.
    """
    fit_key, data_key, critics_key = jax.random.split(key, 3)
    state = state._replace(replay=replay.without_nonfinite(state.replay))
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
        state = update_critics(algorithm, critics_key, state, view)
    return state, view, metrics | data_metrics


def scan_with_new_data(
    algorithm: Algorithm,
    body: Callable,
    key: jax.Array,
    state: TrainState,
    view: PyTree,
    env_steps: jax.Array,
    num_steps: int,
):
    """Scan over steps, and make model data at even distances, as often as the experience asks.

    Args:
      algorithm: the assembly.
      body: `(state, key) -> (state, found)`, a step.
      key: a key, used up.
      state: before.
      view: of the model's state.
      env_steps: `[refreshes]`, environment steps before each making of data.
      num_steps: steps in all.

    Returns:
      The state after them, what was found, stacked, and the metrics of the data.
    """
    refreshes = algorithm.experience.refreshes
    span = num_steps // refreshes

    def one_span(state, inputs):
        key, env_steps = inputs
        data_key, span_key = jax.random.split(key)
        state, metrics = make_data(algorithm, data_key, state, view, env_steps)
        state, found = jax.lax.scan(body, state, jax.random.split(span_key, span))
        return state, (found, metrics)

    inputs = jax.random.split(key, refreshes), env_steps
    state, (found, metrics) = jax.lax.scan(one_span, state, inputs)
    return state, found, mean_metrics(metrics)


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

    def collect(
        config: Config, state: TrainState, num_steps: jax.Array | None = None
    ) -> TrainState:
        number = config.random_steps if num_steps is None else num_steps
        algorithm = make_algorithm(env, config)
        # The density of a uniform action in [-1, 1].
        density = jnp.float32(-env.spec.action_size * jnp.log(2.0))
        log_prob = density if algorithm.keeps_log_prob else ()

        def step(_, state: TrainState) -> TrainState:
            key, action_key, env_key = jax.random.split(state.key, 3)
            action = random_action(action_key, env.spec.action_size)
            state = state._replace(key=key)
            return interact(env, algorithm, env_key, state, action, log_prob)[0]

        return jax.lax.fori_loop(0, number, step, state)

    def catch_up(config: Config, part: jax.Array, state: TrainState):
        algorithm = make_algorithm(env, config)
        key, refresh_key, updates_key = jax.random.split(state.key, 3)

        def first_fit(state: TrainState):
            env_steps = jnp.int32(config.random_steps)
            state, _, metrics = refresh(algorithm, refresh_key, state, env_steps)
            return state, jnp.float32(metrics.get("model/gradient_steps", 0))

        def unchanged(state: TrainState):
            return state, jnp.float32(0)

        start, model_steps = jax.lax.cond(part == 0, first_fit, unchanged, state)
        view = algorithm.model.ready(start.model) if algorithm.model else ()

        def update(state: TrainState, key: jax.Array):
            return update_agent(algorithm, key, state, view)[0], None

        env_steps = jnp.full(algorithm.experience.refreshes, config.random_steps)
        start = start._replace(key=key)
        end, _, _ = scan_with_new_data(
            algorithm, update, updates_key, start, view, env_steps, config.steps_per_fit
        )
        return freeze_if_diverged(state, end, {})[0], model_steps

    def step(config: Config, env_steps: jax.Array, state: TrainState):
        algorithm = make_algorithm(env, config)
        key, refresh_key, steps_key = jax.random.split(state.key, 3)
        start, view, refresh_metrics = refresh(algorithm, refresh_key, state, env_steps)
        taken_out = state.replay.size - start.replay.size

        def env_step(state, key):
            action_key, env_key, update_key = jax.random.split(key, 3)
            state, action, log_prob = act(algorithm, action_key, state, view)
            state, reward, finished = interact(env, algorithm, env_key, state, action, log_prob)
            state, metrics = update_agent(algorithm, update_key, state, view)
            return state, (metrics, reward, finished)

        start, data_metrics = start._replace(key=key), {}
        if algorithm.experience.refreshes == 1:
            keys = jax.random.split(steps_key, config.steps_per_fit)
            end, found = jax.lax.scan(env_step, start, keys)
        else:
            refreshes = algorithm.experience.refreshes
            firsts = env_steps + jnp.arange(refreshes) * (config.steps_per_fit // refreshes)
            end, found, data_metrics = scan_with_new_data(
                algorithm, env_step, steps_key, start, view, firsts, config.steps_per_fit
            )
        update_metrics, rewards, finished = found
        stored = jnp.sum(~jnp.isnan(rewards), dtype=jnp.int32)
        unseen = end.replay._replace(size=jnp.minimum(end.replay.size, stored))
        metrics = {
            **refresh_metrics,
            **data_metrics,
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

    return Program(init, collect, catch_up, step, evaluate, measure)


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
