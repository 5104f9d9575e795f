"""Tabular learners that plan with a table of past outcomes (Sutton and Barto 2018, chapter 8).

All tables are `[S, A]`, over states and moves. The model holds the last outcome of each pair of
them, so planning is exact where outcomes are deterministic.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.agents import targets
from mbpo_jax.config import TabularConfig
from mbpo_jax.types import Agent, EnvSpec, EnvState, Metrics, Transition

Pair = tuple[jax.Array, jax.Array]
"""Numbers of a state and of a move, int32."""


class TableModel(NamedTuple):
    """The last outcome of each pair; one that was never tried leads to itself, for no reward.

    Attributes:
      next_state: `[S, A]` int32.
      reward: `[S, A]` float32.
      discount: `[S, A]` float32, 0 where the outcome was a termination.
      tried: `[S, A]` bool.
      time: `[S, A]` int32, the step in which the pair was last tried; 0 if it never was.
    """

    next_state: jax.Array
    reward: jax.Array
    discount: jax.Array
    tried: jax.Array
    time: jax.Array


class TabularState(NamedTuple):
    """What an update changes.

    Attributes:
      q: `[S, A]` float32, action values.
      model: past outcomes.
      priority: `[S, A]` float32, change that waits to be made, for prioritized sweeping; 0 for a
        pair that is not in the queue.
      time: int32, real steps so far.
    """

    q: jax.Array
    model: TableModel
    priority: jax.Array
    time: jax.Array


def epsilon_greedy(q: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """Return each move's probability `epsilon / A + (1 - epsilon) / ties` if it is a best one.

    Args:
      q: `[A]`, values of the moves.
      epsilon: probability of a random move.
    """
    best = (q == jnp.max(q)).astype(q.dtype)
    return epsilon / q.shape[0] + (1.0 - epsilon) * best / jnp.sum(best)


def td_error(q: jax.Array, model: TableModel, pair: Pair, gamma: jax.Array | float) -> jax.Array:
    """Return `r + gamma d max_b Q(s', b) - Q(s, a)` with the model's outcome of a pair."""
    value = jnp.max(q[model.next_state[pair]])
    return targets.td0(model.reward[pair], model.discount[pair], value, gamma) - q[pair]


def learn(q: jax.Array, model: TableModel, pair: Pair, config: TabularConfig) -> jax.Array:
    """Return the values after one step of Q-learning with the model's outcome of a pair."""
    return q.at[pair].add(config.step_size * td_error(q, model, pair, config.gamma))


def sample_pairs(key: jax.Array, allowed: jax.Array, num_pairs: int) -> Pair:
    """Draw pairs `[num_pairs]`, uniformly and with replacement, where `allowed [S, A]`."""
    count = jnp.cumsum(allowed)
    rank = jax.random.randint(key, (num_pairs,), 0, jnp.maximum(count[-1], 1))
    index = jnp.searchsorted(count, rank, side="right")
    return jnp.divmod(index, allowed.shape[1])


def predecessor_errors(
    q: jax.Array, model: TableModel, state: jax.Array, gamma: jax.Array | float
) -> jax.Array:
    """Return the size of the TD error `[S, A]` of each pair known to lead to a state, else 0."""
    value = jnp.full_like(q, jnp.max(q[state]))
    error = targets.td0(model.reward, model.discount, value, gamma) - q
    return jnp.where(model.tried & (model.next_state == state), jnp.abs(error), 0.0)


def record(model: TableModel, pair: Pair, transition: Transition, time: jax.Array) -> TableModel:
    """Note the outcome of a pair and the time it was tried."""
    return TableModel(
        next_state=model.next_state.at[pair].set(jnp.argmax(transition.next_observation)),
        reward=model.reward.at[pair].set(transition.reward),
        discount=model.discount.at[pair].set(transition.discount),
        tried=model.tried.at[pair].set(True),
        time=model.time.at[pair].set(time),
    )


def replan(
    key: jax.Array, q: jax.Array, model: TableModel, allowed: jax.Array, config: TabularConfig
) -> jax.Array:
    """Return the values after n steps of Q-learning with random pairs of the model."""
    pairs = sample_pairs(key, allowed, config.planning_steps)
    return jax.lax.scan(lambda q, pair: (learn(q, model, pair, config), None), q, pairs)[0]


def dyna_q(
    key: jax.Array, state: TabularState, newest: Pair, config: TabularConfig
) -> tuple[TabularState, jax.Array]:
    """Learn from the newest outcome, then from n pairs that were tried (section 8.2).

    Pairs are drawn uniformly; in the book, a state is drawn first and then one of its moves.

    Returns:
      The state and the number of values that were updated.
    """
    q = learn(state.q, state.model, newest, config)
    q = replan(key, q, state.model, state.model.tried, config)
    return state._replace(q=q), jnp.float32(1 + config.planning_steps)


def dyna_q_plus(
    key: jax.Array, state: TabularState, newest: Pair, config: TabularConfig
) -> tuple[TabularState, jax.Array]:
    """Learn as Dyna-Q, but plan with `bonus * sqrt(steps since the pair was tried)` (section 8.3).

    Planning also considers moves that were never tried in states that were visited.

    Returns:
      The state and the number of values that were updated.
    """
    model = state.model
    elapsed = (state.time - model.time).astype(model.reward.dtype)
    curious = model._replace(reward=model.reward + config.bonus * jnp.sqrt(elapsed))
    visited = jnp.any(model.tried, axis=1, keepdims=True)
    q = learn(state.q, model, newest, config)
    q = replan(key, q, curious, jnp.broadcast_to(visited, model.tried.shape), config)
    return state._replace(q=q), jnp.float32(1 + config.planning_steps)


def prioritized_sweeping(
    key: jax.Array, state: TabularState, newest: Pair, config: TabularConfig
) -> tuple[TabularState, jax.Array]:
    """Put the newest pair into the queue, then serve the queue up to n times (section 8.4).

    There is no update besides. The queue is a table of priorities: taking its first entry and
    finding the predecessors of a state by comparing it with all known successors cost O(S A) each,
    where a heap and lists of predecessors would cost less on a larger problem.

    Returns:
      The state and the number of values that were updated.
    """
    del key
    model = state.model

    def insert(priority: jax.Array, size: jax.Array) -> jax.Array:
        return jnp.maximum(priority, jnp.where(size > config.threshold, size, 0.0))

    def serve(carry: tuple[jax.Array, jax.Array], _):
        q, priority = carry
        first = jnp.divmod(jnp.argmax(priority), priority.shape[1])
        waiting = priority[first] > 0
        q = jnp.where(waiting, learn(q, model, first, config), q)
        errors = predecessor_errors(q, model, first[0], config.gamma)
        priority = insert(priority.at[first].set(0.0), jnp.where(waiting, errors, 0.0))
        return (q, priority), waiting

    error = jnp.abs(td_error(state.q, model, newest, config.gamma))
    priority = state.priority.at[newest].set(insert(state.priority[newest], error))
    (q, priority), served = jax.lax.scan(serve, (state.q, priority), length=config.planning_steps)
    return state._replace(q=q, priority=priority), jnp.sum(served, dtype=jnp.float32)


METHODS: dict[str, Callable[..., tuple[TabularState, jax.Array]]] = {
    "dyna_q": dyna_q,
    "dyna_q_plus": dyna_q_plus,
    "prioritized_sweeping": prioritized_sweeping,
}
"""`(key, state, newest, config) -> (state, number of updates)`; the model holds the newest pair."""


def make_tabular_agent(spec: EnvSpec, config: TabularConfig, method: str) -> Agent:
    """Build a tabular learner that acts epsilon-greedily, with ties broken at random.

    Its updates read one transition, the newest.

    Args:
      spec: sizes; of a tabular environment.
      config: rates and the number of planning steps.
      method: one of `METHODS`.
    """
    shape = (spec.observation_size, spec.action_size)

    def init(key: jax.Array) -> TabularState:
        del key
        own = jnp.arange(spec.observation_size, dtype=jnp.int32)
        model = TableModel(
            next_state=jnp.repeat(own[:, None], spec.action_size, axis=1),
            reward=jnp.zeros(shape),
            discount=jnp.ones(shape),
            tried=jnp.zeros(shape, bool),
            time=jnp.zeros(shape, jnp.int32),
        )
        return TabularState(jnp.zeros(shape), model, jnp.zeros(shape), jnp.int32(0))

    def act(key: jax.Array, state: TabularState, view, memory, env: EnvState, explore: bool):
        del view
        epsilon = config.epsilon if explore else 0.0
        probability = epsilon_greedy(state.q[jnp.argmax(env.observation)], epsilon)
        move = jax.random.categorical(key, jnp.log(probability))
        return jax.nn.one_hot(move, spec.action_size), memory

    def deterministic(state: TabularState, observation: jax.Array) -> jax.Array:
        # Of moves that are as good, the first.
        best = jnp.argmax(state.q[jnp.argmax(observation, axis=-1)], axis=-1)
        return jax.nn.one_hot(best, spec.action_size)

    def update(
        key: jax.Array, state: TabularState, view, batch: Transition
    ) -> tuple[TabularState, Metrics]:
        del view
        newest = jax.tree.map(lambda x: x[0], batch)
        pair = jnp.argmax(newest.observation), jnp.argmax(newest.action)
        time = state.time + 1
        model = record(state.model, pair, newest, time)
        error = jnp.abs(td_error(state.q, model, pair, config.gamma))
        state, num_updates = METHODS[method](
            key, state._replace(model=model, time=time), pair, config
        )
        return state, {"tabular/td_error": error, "tabular/updates": num_updates}

    return Agent(
        init=init,
        begin=lambda: (),
        act=act,
        update=update,
        updates_per_step=1,
        batch_size=1,
        deterministic=deterministic,
    )
