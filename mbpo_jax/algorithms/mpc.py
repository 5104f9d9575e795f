"""Model-predictive control: plan action sequences through the model, act, plan again.

With an ensemble, trajectory sampling and CEM this is PETS (Chua et al. 2018, arXiv:1805.12114).
A plan is open-loop, whether it is replaced at every step or not: it does not know that it will see
more before it is over.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.algorithms.parts import make_model, planning_agent, point_of, replay_experience
from mbpo_jax.config import Config, PlannerConfig
from mbpo_jax.keys import cond_with_key
from mbpo_jax.planning import shooting
from mbpo_jax.types import Agent, Algorithm, DynamicsModel, Env, EnvState, Point, PyTree


class Commitment(NamedTuple):
    """What an open-loop planner carries through an episode.

    Attributes:
      actions: `[T, A]`, the plan.
      step: int32, how many of its actions were carried out; 0 where a plan is due.
    """

    actions: jax.Array
    step: jax.Array


def sequence_returns(
    key: jax.Array,
    model: DynamicsModel,
    view: PyTree,
    point: Point,
    actions: jax.Array,
    config: PlannerConfig,
) -> jax.Array:
    """Return the mean return `[N]` of action sequences `[N, T, A]` over their particles.

    Returns are discounted and end at a predicted termination. A sequence is worth minus infinity if
    a particle's rollout broke down before that.

    Rows are sorted by particle, then by sequence. As equal shares of them meet the members, in
    order, the particles of each sequence are spread over the members, if their number is a multiple
    of the members'.

    Args:
      key: a key, used up.
      model: its functions.
      view: of the model's state.
      point: where the sequences start, one row.
      actions: as above.
      config: settings.
    """
    num_rows = config.num_particles * actions.shape[0]

    def step(carry: tuple[Point, jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array]):
        point, weight, total = carry
        time, action = inputs
        action = jnp.tile(action, (config.num_particles, 1))
        step_key = jax.random.fold_in(key, time)
        point, prediction = model.step(step_key, view, point, action, config.propagation)
        reward = jnp.where(prediction.finite, prediction.reward, -jnp.inf)
        total += jnp.where(weight > 0.0, weight * reward, 0.0)
        return (point, weight * config.gamma * prediction.discount, total), None

    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_rows, *x.shape[1:])), point)
    inputs = jnp.arange(actions.shape[1]), jnp.swapaxes(actions, 0, 1)
    carry = start, jnp.ones(num_rows), jnp.zeros(num_rows)
    (_, _, total), _ = jax.lax.scan(step, carry, inputs)
    return jnp.mean(total.reshape(config.num_particles, -1), axis=0)


def make_planning_agent(model: DynamicsModel, action_size: int, config: PlannerConfig) -> Agent:
    """Build an agent that plans at every step, or carries each plan out to its end.

    It acts the same whether it explores or not. What it remembers is the first guess `[T, A]` of
    the next search, or the plan itself and how far it got.

    Args:
      model: what it plans with.
      action_size: `A`.
      config: of the planner.
    """
    blank = (config.horizon, action_size)

    def search(key: jax.Array, view: PyTree, mean: jax.Array, env: EnvState) -> shooting.Plan:
        point = point_of(model, env)

        def evaluate(key: jax.Array, actions: jax.Array) -> jax.Array:
            return sequence_returns(key, model, view, point, actions, config)

        return shooting.plan(key, evaluate, mean, config)

    def replan(key, state, view, memory: jax.Array, env: EnvState, explore: bool):
        del state, explore
        found = search(key, view, memory, env)
        return found.actions[0], shooting.shift(found.mean)

    def carry_out(key, state, view, memory: Commitment, env: EnvState, explore: bool):
        del state, explore

        def fresh(key: jax.Array) -> jax.Array:
            return search(key, view, jnp.zeros(blank), env).actions

        actions = cond_with_key(memory.step == 0, key, fresh, lambda: memory.actions)
        return actions[memory.step], Commitment(actions, (memory.step + 1) % config.horizon)

    def begin() -> PyTree:
        plan = jnp.zeros(blank)
        return Commitment(plan, jnp.int32(0)) if config.open_loop else plan

    return planning_agent(begin, carry_out if config.open_loop else replan)


def make_mpc(env: Env, config: Config) -> Algorithm:
    """Assemble model-predictive control: replay for the model's fit, a planner."""
    model = make_model(env, config)
    agent = make_planning_agent(model, env.spec.action_size, config.planner)
    return Algorithm(agent, replay_experience(), model)
