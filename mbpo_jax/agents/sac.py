"""Soft actor-critic with automatic temperature (Haarnoja et al. 2018, arXiv:1812.05905).

One loss, one function; equation numbers are of that paper. Losses are means over a batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax.agents import targets
from mbpo_jax.config import SACConfig
from mbpo_jax.nets import distributions, networks
from mbpo_jax.types import Agent, EnvSpec, Metrics, PyTree, Transition


class SACState(NamedTuple):
    """What an update changes.

    Attributes:
      policy: parameters.
      critics: parameters, stacked over critics.
      target_critics: their Polyak averages.
      log_alpha: float32, logarithm of the temperature.
      policy_optimizer: Adam's state.
      critic_optimizer: Adam's state.
      alpha_optimizer: Adam's state.
    """

    policy: PyTree
    critics: PyTree
    target_critics: PyTree
    log_alpha: jax.Array
    policy_optimizer: PyTree
    critic_optimizer: PyTree
    alpha_optimizer: PyTree


def soft_value(q: jax.Array, log_prob: jax.Array, alpha: jax.Array) -> jax.Array:
    """Return `min_i Q_i - alpha log pi` (eq. 3 with the minimum over critics).

    Args:
      q: `[C, B]`.
      log_prob: `[B]`.
      alpha: temperature.
    """
    return jnp.min(q, axis=0) - alpha * log_prob


def critic_loss(q: jax.Array, target: jax.Array) -> jax.Array:
    """Return half the squared Bellman error (eq. 5), summed over critics `q [C, B]`."""
    return 0.5 * jnp.sum(jnp.mean(jnp.square(q - target[None]), axis=1))


def policy_loss(q: jax.Array, log_prob: jax.Array, alpha: jax.Array) -> jax.Array:
    """Return the mean of `alpha log pi - min_i Q_i` (eq. 9)."""
    return -jnp.mean(soft_value(q, log_prob, alpha))


def temperature_loss(
    log_alpha: jax.Array, log_prob: jax.Array, target_entropy: jax.Array | float
) -> jax.Array:
    """Return the mean of `-log alpha (log pi + target entropy)`.

    Eq. 18 has alpha in the place of its logarithm; the authors' code, and so the reference, takes
    the logarithm.
    """
    return -log_alpha * jnp.mean(log_prob + target_entropy)


def make_sac(spec: EnvSpec, config: SACConfig) -> Agent:
    """Build soft actor-critic for an environment's sizes."""
    action_size = spec.action_size
    policy_net = networks.make_mlp(spec.observation_size, config.hidden_sizes, 2 * action_size)
    critic_net = networks.ensemble_of(
        networks.make_mlp(
            spec.observation_size + action_size,
            config.hidden_sizes,
            1,
            layer_norm=config.critic_layer_norm,
        ),
        config.num_critics,
        shared_input=True,
    )
    optimizer = optax.adam(config.learning_rate)

    def init(key: jax.Array) -> SACState:
        policy_key, critic_key = jax.random.split(key)
        policy, critics = policy_net.init(policy_key), critic_net.init(critic_key)
        log_alpha = jnp.log(jnp.asarray(config.initial_alpha, jnp.float32))
        return SACState(
            policy=policy,
            critics=critics,
            # A copy: donated buffers must not be shared.
            target_critics=jax.tree.map(jnp.copy, critics),
            log_alpha=log_alpha,
            policy_optimizer=optimizer.init(policy),
            critic_optimizer=optimizer.init(critics),
            alpha_optimizer=optimizer.init(log_alpha),
        )

    def action_and_log_prob(policy: PyTree, observation: jax.Array, noise: jax.Array):
        output = policy_net.apply(policy, observation)
        return distributions.tanh_normal(*distributions.split_mean_log_std(output), noise)

    def q_values(critics: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        return critic_net.apply(critics, jnp.concatenate([observation, action], -1))[..., 0]

    def sample_action(key: jax.Array, state: SACState, observation: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, (*observation.shape[:-1], action_size))
        return action_and_log_prob(state.policy, observation, noise)[0]

    def mode_action(state: SACState, observation: jax.Array) -> jax.Array:
        output = policy_net.apply(state.policy, observation)
        return jnp.tanh(distributions.split_mean_log_std(output)[0])

    def update_critics(state: SACState, batch: Transition, noise: jax.Array):
        action, log_prob = action_and_log_prob(state.policy, batch.next_observation, noise)
        next_q = q_values(state.target_critics, batch.next_observation, action)
        next_value = soft_value(next_q, log_prob, jnp.exp(state.log_alpha))
        target = targets.td0(batch.reward, batch.discount, next_value, config.gamma)

        def loss(critics):
            q = q_values(critics, batch.observation, batch.action)
            return critic_loss(q, target), jnp.mean(q)

        (value, q_mean), gradient = jax.value_and_grad(loss, has_aux=True)(state.critics)
        updates, optimizer_state = optimizer.update(gradient, state.critic_optimizer)
        critics = optax.apply_updates(state.critics, updates)
        target_critics = optax.incremental_update(critics, state.target_critics, config.tau)
        state = state._replace(
            critics=critics, target_critics=target_critics, critic_optimizer=optimizer_state
        )
        return state, {"sac/critic_loss": value, "sac/q_mean": q_mean}

    def update_policy(state: SACState, batch: Transition, noise: jax.Array):
        def loss(policy):
            action, log_prob = action_and_log_prob(policy, batch.observation, noise)
            q = q_values(state.critics, batch.observation, action)
            return policy_loss(q, log_prob, jnp.exp(state.log_alpha)), log_prob

        (value, log_prob), gradient = jax.value_and_grad(loss, has_aux=True)(state.policy)
        updates, optimizer_state = optimizer.update(gradient, state.policy_optimizer)
        policy = optax.apply_updates(state.policy, updates)
        state = state._replace(policy=policy, policy_optimizer=optimizer_state)
        return state, log_prob, {"sac/policy_loss": value, "sac/entropy": -jnp.mean(log_prob)}

    def update_temperature(state: SACState, log_prob: jax.Array):
        gradient = jax.grad(temperature_loss)(state.log_alpha, log_prob, config.target_entropy)
        updates, optimizer_state = optimizer.update(gradient, state.alpha_optimizer)
        log_alpha = optax.apply_updates(state.log_alpha, updates)
        return state._replace(log_alpha=log_alpha, alpha_optimizer=optimizer_state)

    def update(key: jax.Array, state: SACState, batch: Transition) -> tuple[SACState, Metrics]:
        noise = jax.random.normal(key, (2, *batch.action.shape))
        state, critic_metrics = update_critics(state, batch, noise[0])
        state, log_prob, policy_metrics = update_policy(state, batch, noise[1])
        state = update_temperature(state, log_prob)
        return state, {**critic_metrics, **policy_metrics, "sac/alpha": jnp.exp(state.log_alpha)}

    return Agent(init, sample_action, mode_action, update)
