"""A scalar system, a policy and critics by hand: every target and gradient has a closed form.

The state moves as `s' = A s + B a`, the reward is `C s + D a`, the policy acts `a = k s`, with the
log-density LOG_PROB whatever it does. Values are linear: `V(s) = w s + e`.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.agents.actor_critic import ActorCritic, SACState
from mbpo_jax.types import DynamicsModel, Point, Prediction, Transition

A, B, C, D = 0.8, 0.5, 1.0, -0.3
GAIN = -0.6
GAMMA = 0.9
ALPHA = 0.2
LOG_PROB = 0.7
ENTROPY_BONUS = -ALPHA * LOG_PROB
SLOPE = (C + D * GAIN) / (1.0 - GAMMA * (A + B * GAIN))
OFFSET = ENTROPY_BONUS / (1.0 - GAMMA)


def exact_q(observation, action):
    """Return the soft Q of the policy, which leaves out the entropy of its own action."""
    following = A * observation + B * action
    return C * observation + D * action + GAMMA * (SLOPE * following + OFFSET)


def make_nets(noise: float = 0.0) -> ActorCritic:
    """Critics `[C]` are errors that are added to the exact values; the policy may be noisy."""

    def sample(key, policy, observation):
        action = policy * observation + noise * jax.random.normal(key, observation.shape)
        return action, jnp.full(observation.shape[:-1], LOG_PROB)

    def q_values(critics, observation, action):
        exact = exact_q(observation, action)[..., 0]
        return exact[None] + jnp.expand_dims(critics, tuple(range(1, exact.ndim + 1)))

    return ActorCritic(sample, lambda *_: None, lambda *_: None, q_values)


def make_state(errors=(0.0,)) -> SACState:
    critics = jnp.asarray(errors)
    log_alpha = jnp.log(ALPHA)
    return SACState(jnp.float32(GAIN), critics, critics, log_alpha, (), (), ())


def make_model(offsets=(0.0,), limit: float = jnp.inf) -> DynamicsModel:
    """Members differ in what they add to the next state; above `limit` they predict termination."""
    offset = jnp.asarray(offsets)
    num_members = len(offsets)

    def step(key, view, point, action, propagation):
        share = point.observation.reshape(num_members, -1, 1)
        moved = A * share + B * action.reshape(share.shape) + offset[:, None, None]
        following = moved.reshape(-1, 1)
        reward = (C * point.observation + D * action)[:, 0]
        discount = 1.0 - (following[:, 0] > limit)
        return Point(following), Prediction(reward, discount, jnp.ones_like(reward, bool))

    def unused(*_):
        raise AssertionError("a model made by hand is neither initialised nor fitted")

    return DynamicsModel(
        num_members=num_members,
        needs_simulator=False,
        init=unused,
        fit=unused,
        ready=lambda state: state,
        start=lambda observation, simulator: Point(observation),
        follow=lambda key, view, batch: (Point(batch.next_observation), batch),
        step=step,
        diagnose=unused,
    )


def real_batch(observation=(0.5, -1.0, 2.0, 0.1), discount=(1.0, 1.0, 1.0, 0.0)) -> Transition:
    """Return transitions with actions of another policy than the one that is evaluated."""
    observation = jnp.asarray(observation)[:, None]
    action = 0.3 - 0.1 * observation
    following = A * observation + B * action
    reward = (C * observation + D * action)[:, 0]
    return Transition(observation, action, reward, jnp.asarray(discount), following)


def exact_target(batch: Transition) -> jax.Array:
    value = SLOPE * batch.next_observation[:, 0] + OFFSET
    return batch.reward + GAMMA * batch.discount * value
