"""The true system in a learned model's place: what an algorithm does without model error."""

import jax
import jax.numpy as jnp

from mbpo_jax.models.rows import check_propagation, where_rows
from mbpo_jax.types import DynamicsModel, Env, EnvState, Point, Prediction, Transition


def make_oracle(env: Env) -> DynamicsModel:
    """Put an environment in a model's place.

    Rollouts start from simulator states, which the replay buffer therefore has to keep. There is
    nothing to fit, no uncertainty, and no time limit.
    """

    def step(
        key: jax.Array, view: tuple[()], point: Point, action: jax.Array, propagation: str
    ) -> tuple[Point, Prediction]:
        del view
        check_propagation(propagation)
        before = EnvState(point.simulator, point.observation, *_clock(action.shape[0]))
        if propagation == "mean" and env.mean_step is not None:
            after, transition = jax.vmap(env.mean_step)(before, action)
        else:
            keys = jax.random.split(key, action.shape[0])
            after, transition = jax.vmap(env.step)(keys, before, action)
        finite = jnp.all(jnp.isfinite(transition.next_observation), axis=-1)
        finite &= jnp.isfinite(transition.reward)
        following = Point(transition.next_observation, after.simulator)
        reward = jnp.where(finite, transition.reward, 0.0)
        discount = jnp.where(finite, transition.discount, 0.0)
        return where_rows(finite, following, point), Prediction(reward, discount, finite)

    def follow(key: jax.Array, view: tuple[()], batch: Transition) -> tuple[Point, Transition]:
        start = Point(batch.observation, batch.simulator)
        point, prediction = step(key, view, start, batch.action, "step")
        again = batch._replace(
            reward=prediction.reward,
            discount=prediction.discount,
            next_observation=point.observation,
        )
        return point, again

    return DynamicsModel(
        num_members=1,
        needs_simulator=True,
        init=lambda key: (),
        fit=lambda key, state, real, env_steps: (state, {}),
        ready=lambda state: state,
        start=Point,
        follow=follow,
        step=step,
        diagnose=lambda state, real: {},
    )


def _clock(num_rows: int) -> tuple[jax.Array, jax.Array]:
    """Return that no step was made yet and no episode is over."""
    return jnp.zeros(num_rows, jnp.int32), jnp.zeros(num_rows, bool)
