"""Iterative LQR through the model (Li and Todorov 2004): a plan with time-varying feedback.

The planner needs a system without noise: the mean prediction of the model. Its state is all
floating-point numbers of a `Point`, so with the true system in the model's place it is the whole
state of the simulator. That is meant for the systems known in closed form: derivatives cost as many
model steps as there are numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.algorithms.parts import make_model, planning_agent, point_of, replay_experience
from mbpo_jax.config import Config, ILQRConfig
from mbpo_jax.keys import cond_with_key
from mbpo_jax.planning.ilqr import ilqr
from mbpo_jax.trees import coordinates
from mbpo_jax.types import Agent, Algorithm, DynamicsModel, Env, EnvState, Point, Prediction, PyTree


class FeedbackPlan(NamedTuple):
    """What the agent carries through an episode.

    Attributes:
      states: `[T, n]`, at which the actions were planned.
      actions: `[T, A]`.
      gains: `[T, A, n]`, of the feedback.
      step: int32, how many actions were carried out; 0 where a plan is due.
    """

    states: jax.Array
    actions: jax.Array
    gains: jax.Array
    step: jax.Array


class NoiseFree(NamedTuple):
    """A model as the planner sees it. A state is the numbers of a point and whether it is alive.

    Attributes:
      dynamics: `(state [n + 1], action [A]) -> next state`.
      reward: `(state [n + 1], action [A]) -> []`.
      start: `[n + 1]`.
    """

    dynamics: Callable[[jax.Array, jax.Array], jax.Array]
    reward: Callable[[jax.Array, jax.Array], jax.Array]
    start: jax.Array


def noise_free(key: jax.Array, model: DynamicsModel, view: PyTree, point: Point) -> NoiseFree:
    """Turn a model into a system without noise, in which nothing is paid after a termination.

    A non-finite prediction costs infinitely much.

    Args:
      key: a key, used up.
      model: its functions.
      view: of the model's state.
      point: where the plan starts, one row.
    """
    x0, restore = coordinates(point)

    def outcome(x: jax.Array, u: jax.Array) -> tuple[jax.Array, Prediction]:
        # A mean draws nothing, so the same key will do for all steps.
        after, prediction = model.step(jax.random.clone(key), view, restore(x), u[None], "mean")
        return coordinates(after)[0], jax.tree.map(lambda row: row[0], prediction)

    def dynamics(state: jax.Array, u: jax.Array) -> jax.Array:
        x, prediction = outcome(state[:-1], u)
        return jnp.append(x, state[-1] * prediction.discount)

    def reward(state: jax.Array, u: jax.Array) -> jax.Array:
        _, prediction = outcome(state[:-1], u)
        alive = state[-1]
        return jnp.where(prediction.finite | (alive == 0.0), alive * prediction.reward, -jnp.inf)

    return NoiseFree(dynamics, reward, jnp.append(x0, 1.0))


def make_ilqr_agent(env: Env, model: DynamicsModel, config: ILQRConfig) -> Agent:
    """Build an agent that plans every few steps and corrects its plan by feedback in between.

    Args:
      env: tells the sizes.
      model: what it plans with.
      config: of the planner.
    """
    period = config.replan_every
    state_size = jax.eval_shape(
        lambda key: coordinates(point_of(model, env.reset(key)))[0], jax.random.key(0)
    ).size

    def begin() -> FeedbackPlan:
        actions = jnp.zeros((config.horizon, env.spec.action_size))
        return FeedbackPlan(
            states=jnp.zeros((config.horizon, state_size)),
            actions=actions,
            gains=jnp.zeros((*actions.shape, state_size)),
            step=jnp.int32(0),
        )

    def plan(key: jax.Array, view: PyTree, old: FeedbackPlan, point: Point) -> FeedbackPlan:
        system = noise_free(key, model, view, point)
        guess = jnp.concatenate([old.actions[period:], jnp.zeros_like(old.actions[:period])])
        found = ilqr(system.dynamics, system.reward, system.start, guess, config)
        # A plan that ends early has no say in what to do if the episode goes on.
        return FeedbackPlan(found.states[:-1, :-1], found.actions, found.gains[..., :-1], old.step)

    def act(key, state, view, memory: FeedbackPlan, env_state: EnvState, explore: bool):
        del state
        plan_key, noise_key = jax.random.split(key)
        point = point_of(model, env_state)

        def fresh(key: jax.Array) -> FeedbackPlan:
            return plan(key, view, memory, point)

        now = cond_with_key(memory.step == 0, plan_key, fresh, lambda: memory)
        i, action = now.step, now.actions[now.step]
        if config.feedback:
            action += now.gains[i] @ (coordinates(point)[0] - now.states[i])
        if explore:
            action += config.exploration_std * jax.random.normal(noise_key, action.shape)
        return jnp.clip(action, -1.0, 1.0), now._replace(step=(i + 1) % period)

    return planning_agent(begin, act)


def make_ilqr(env: Env, config: Config) -> Algorithm:
    """Assemble iterative LQR: replay for the model's fit, a planner with feedback."""
    model = make_model(env, config)
    return Algorithm(make_ilqr_agent(env, model, config.ilqr), replay_experience(), model)
