"""Policy and critics: their networks, what an actor-critic carries, and what is asked of them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.config import SACConfig
from mbpo_jax.nets import distributions, networks
from mbpo_jax.nets.normalizer import Scaler, scale
from mbpo_jax.types import EnvSpec, PyTree

RANGE_RATE = 3e-4
"""Share of the newest batch in the range of values (Kubo et al. 2025, published code)."""
ACTIVATIONS = {"relu": jax.nn.relu, "swish": jax.nn.swish}


class ValueRange(NamedTuple):
    """Bounds of what critics may say.

    Attributes:
      low: float32.
      high: float32; equal to `low` before the first update.
    """

    low: jax.Array
    high: jax.Array


class SACState(NamedTuple):
    """What an update changes.

    Attributes:
      policy: parameters.
      critics: parameters, stacked over critics.
      target_critics: their Polyak averages.
      log_alpha: float32, logarithm of the temperature; () if there is none.
      policy_optimizer: Adam's state.
      critic_optimizer: Adam's state.
      alpha_optimizer: Adam's state; () if there is no temperature.
      scaler: of the observations `[O]` as policy and critics see them; () if they see them bare.
      value_range: of the critics; () if they may say anything.
    """

    policy: PyTree
    critics: PyTree
    target_critics: PyTree
    log_alpha: jax.Array | tuple[()]
    policy_optimizer: PyTree
    critic_optimizer: PyTree
    alpha_optimizer: PyTree
    scaler: Scaler | tuple[()] = ()
    value_range: ValueRange | tuple[()] = ()


def temperature(state: SACState) -> jax.Array:
    """Return alpha, 0 for a policy without entropy."""
    return jnp.float32(0) if isinstance(state.log_alpha, tuple) else jnp.exp(state.log_alpha)


class Networks(NamedTuple):
    """The networks, without what an agent carries beside their parameters.

    Attributes:
      policy: observation to `[..., 2 A]`.
      critics: a row of observation and action for each critic `[C, ..., O + A]` to `[C, ..., 1]`.
      exploration_noise: the standard deviation of a policy that does not learn one.
    """

    policy: networks.Network
    critics: networks.Network
    exploration_noise: jax.Array | float | None = None


def smallest(q: jax.Array) -> jax.Array:
    """Return the minimum over critics, `[C, ...]` to `[...]`."""
    return jnp.min(q, axis=0)


class ActorCritic(NamedTuple):
    """What is asked of policy and critics, at what an agent's state holds beside their parameters.

    Attributes:
      sample: `(key, policy, observation [..., O]) -> (action [..., A], log_prob [...])`, what is
        learned from; of a deterministic policy its action, and zeros.
      explore: `(key, policy, observation [..., O]) -> action [..., A]`, what is done.
      log_prob: `(policy, observation [..., O], action [..., A]) -> [...]`.
      q_values: `(critics, observation [..., O], action [..., A]) -> [C, ...]`.
      chosen: `(key, critics) -> critics`, those whose minimum is a target.
      bounded: `q [...] -> [...]`, values within what critics may say.
      climbed: `q [C, ...] -> [...]`, what a policy climbs.
    """

    sample: Callable[[jax.Array, PyTree, jax.Array], tuple[jax.Array, jax.Array]]
    explore: Callable[[jax.Array, PyTree, jax.Array], jax.Array]
    log_prob: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    q_values: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    chosen: Callable[[jax.Array, PyTree], PyTree] = lambda key, critics: critics
    bounded: Callable[[jax.Array], jax.Array] = lambda q: q
    climbed: Callable[[jax.Array], jax.Array] = smallest


def make_networks(spec: EnvSpec, config: SACConfig) -> Networks:
    """Build the policy's network and the stacked one of the critics."""
    activation = ACTIVATIONS[config.activation]
    policy = networks.make_mlp(
        spec.observation_size, config.hidden_sizes, 2 * spec.action_size, activation=activation
    )
    critic = networks.make_mlp(
        spec.observation_size + spec.action_size,
        config.hidden_sizes,
        1,
        activation=activation,
        layer_norm=config.critic_layer_norm,
        # So that values begin in the middle of their range.
        zero_output=config.value_range == "rewards",
    )
    critics = networks.ensemble_of(critic, config.num_critics)
    return Networks(policy, critics, config.exploration_noise)


def moments(
    nets: Networks, state: SACState, policy: PyTree, observation: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return mean and log standard deviation `[..., A]` of a policy's Gaussian before the tanh."""
    output = nets.policy.apply(policy, seen(state, observation))
    mean, log_std = distributions.split_mean_log_std(output)
    if nets.exploration_noise is None:
        return mean, log_std
    return mean, jnp.full_like(mean, jnp.log(nets.exploration_noise))


def seen(state: SACState, observation: jax.Array) -> jax.Array:
    """Return observations `[..., O]` as the networks see them."""
    return scale(state.scaler, observation) if state.scaler else observation


def make_actor_critic(nets: Networks, config: SACConfig, state: SACState) -> ActorCritic:
    """Build what is asked of the networks.

    Args:
      nets: the networks.
      config: how the critics count together.
      state: read for what it holds beside parameters, which are arguments of the functions.
    """

    def drawn(key: jax.Array, policy: PyTree, observation: jax.Array):
        mean, log_std = moments(nets, state, policy, observation)
        return distributions.tanh_normal(mean, log_std, jax.random.normal(key, mean.shape))

    def sample(key: jax.Array, policy: PyTree, observation: jax.Array):
        if config.exploration_noise is None:
            return drawn(key, policy, observation)
        mean, _ = moments(nets, state, policy, observation)
        return jnp.tanh(mean), jnp.zeros(mean.shape[:-1])

    def explore(key: jax.Array, policy: PyTree, observation: jax.Array) -> jax.Array:
        return drawn(key, policy, observation)[0]

    def log_prob(policy: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        return distributions.tanh_normal_log_prob(
            *moments(nets, state, policy, observation), action
        )

    def q_values(critics: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        x = jnp.concatenate([seen(state, observation), action], -1)
        q = nets.critics.apply(critics, networks.for_all(critics, x))[..., 0]
        if not state.value_range:
            return q
        low, high = state.value_range
        return q * (high - low) / 2.0 + (high + low) / 2.0

    def chosen(key: jax.Array, critics: PyTree) -> PyTree:
        if config.num_target_critics is None:
            return critics
        which = jax.random.permutation(key, config.num_critics)[: config.num_target_critics]
        return jax.tree.map(lambda x: x[which], critics)

    def bounded(q: jax.Array) -> jax.Array:
        return jnp.clip(q, *state.value_range) if state.value_range else q

    mean = config.policy_value == "mean"
    climbed = (lambda q: jnp.mean(q, axis=0)) if mean else smallest
    return ActorCritic(sample, explore, log_prob, q_values, chosen, bounded, climbed)


def target_q(
    critics: PyTree, nets: ActorCritic, observation: jax.Array, action: jax.Array
) -> jax.Array:
    """Return the smallest value `[...]` that critics, as `chosen` gives them, have of an action."""
    return nets.bounded(smallest(nets.q_values(critics, observation, action)))


def followed_range(value_range: ValueRange, rewards: jax.Array, config: SACConfig) -> ValueRange:
    """Return the range of values after one more batch of soft rewards, of any shape.

    The bounds follow the 1 % and 99 % quantiles of the rewards, as if each went on for ever (Kubo
    et al. 2025, published code); that they stay apart where all rewards are alike is ours.
    """
    found = jnp.quantile(rewards, jnp.array([0.01, 0.99])) / (1.0 - config.gamma)
    # Rewards that are all alike, as those of a task that only has to be survived, have no range.
    least = jnp.maximum(jnp.abs(found[1]), 1.0) * 1e-2
    found = ValueRange(found[0], jnp.maximum(found[1], found[0] + least))
    rate = jnp.where(value_range.high > value_range.low, RANGE_RATE, 1.0)
    return jax.tree.map(lambda old, new: (1.0 - rate) * old + rate * new, value_range, found)
