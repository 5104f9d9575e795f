"""Soft actor-critic with automatic temperature (Haarnoja et al. 2018, arXiv:1812.05905).

One loss, one function; equation numbers are of that paper. Losses are means over a batch. What the
critics regress to and how the policy is improved are slots: the algorithms fill them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax.agents import targets
from mbpo_jax.config import SACConfig
from mbpo_jax.nets import distributions, networks
from mbpo_jax.types import Agent, EnvSpec, EnvState, Metrics, Policy, PyTree, Transition


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


class Regression(NamedTuple):
    """What the critics are fitted to.

    Attributes:
      observation: `[B, O]`.
      action: `[B, A]`.
      target: `[B]`.
      weight: `[B]` of each row in the mean; None if all count alike.
    """

    observation: jax.Array
    action: jax.Array
    target: jax.Array
    weight: jax.Array | None = None


class ActorCritic(NamedTuple):
    """The networks, for those who fill the slots.

    Attributes:
      sample: `(key, policy, observation [..., O]) -> (action [..., A], log_prob [...])`.
      log_prob: `(policy, observation [..., O], action [..., A]) -> [...]`.
      q_values: `(critics, observation [..., O], action [..., A]) -> [C, ...]`.
    """

    sample: Callable[[jax.Array, PyTree, jax.Array], tuple[jax.Array, jax.Array]]
    log_prob: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    q_values: Callable[[PyTree, jax.Array, jax.Array], jax.Array]


CriticTarget = Callable[[jax.Array, ActorCritic, SACState, PyTree, PyTree], Regression]
"""`(key, nets, state, view, batch) -> Regression`; `view` is the dynamics model's."""

ActorObjective = Callable[
    [jax.Array, ActorCritic, PyTree, SACState, PyTree, PyTree], tuple[jax.Array, jax.Array]
]
"""`(key, nets, policy, state, view, batch) -> (loss, log_prob)`, differentiated with respect to the
policy; the temperature is steered by the log-densities."""


def soft_value(q: jax.Array, log_prob: jax.Array, alpha: jax.Array) -> jax.Array:
    """Return `min_i Q_i - alpha log pi` (eq. 3 with the minimum over critics).

    Args:
      q: `[C, B]`.
      log_prob: `[B]`.
      alpha: temperature.
    """
    return jnp.min(q, axis=0) - alpha * log_prob


def critic_loss(q: jax.Array, target: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Return half the squared Bellman error (eq. 5), weighted, summed over critics `q [C, B]`."""
    error = jnp.square(q - target[None])
    return 0.5 * jnp.sum(jnp.mean(error if weight is None else weight[None] * error, axis=1))


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


def next_soft_value(
    key: jax.Array, nets: ActorCritic, state: SACState, observation: jax.Array
) -> jax.Array:
    """Return one sample of the soft value of observations `[..., O]` by the target critics."""
    action, log_prob = nets.sample(key, state.policy, observation)
    q = nets.q_values(state.target_critics, observation, action)
    return soft_value(q, log_prob, jnp.exp(state.log_alpha))


def td0_target(gamma: jax.Array | float) -> CriticTarget:
    """Regress to the one-step target (eq. 5)."""

    def target(key, nets, state, view, batch: Transition) -> Regression:
        del view
        value = next_soft_value(key, nets, state, batch.next_observation)
        value = targets.td0(batch.reward, batch.discount, value, gamma)
        return Regression(batch.observation, batch.action, value)

    return target


def q_objective(key, nets, policy, state, view, batch: Transition) -> tuple[jax.Array, jax.Array]:
    """Improve the policy by the critics' gradient at its own action (eq. 9)."""
    del view
    action, log_prob = nets.sample(key, policy, batch.observation)
    q = nets.q_values(state.critics, batch.observation, action)
    return policy_loss(q, log_prob, jnp.exp(state.log_alpha)), log_prob


def make_networks(spec: EnvSpec, config: SACConfig) -> tuple[networks.Network, networks.Network]:
    """Build the policy's network and the stacked one of the critics."""
    policy_net = networks.make_mlp(spec.observation_size, config.hidden_sizes, 2 * spec.action_size)
    critic = networks.make_mlp(
        spec.observation_size + spec.action_size,
        config.hidden_sizes,
        1,
        layer_norm=config.critic_layer_norm,
    )
    return policy_net, networks.ensemble_of(critic, config.num_critics)


def make_actor_critic(policy_net: networks.Network, critic_net: networks.Network) -> ActorCritic:
    """Build the functions of the networks."""

    def moments(policy: PyTree, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        return distributions.split_mean_log_std(policy_net.apply(policy, observation))

    def sample(key: jax.Array, policy: PyTree, observation: jax.Array):
        mean, log_std = moments(policy, observation)
        return distributions.tanh_normal(mean, log_std, jax.random.normal(key, mean.shape))

    def log_prob(policy: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        return distributions.tanh_normal_log_prob(*moments(policy, observation), action)

    def q_values(critics: PyTree, observation: jax.Array, action: jax.Array) -> jax.Array:
        x = jnp.concatenate([observation, action], -1)
        return critic_net.apply(critics, networks.for_all(critics, x))[..., 0]

    return ActorCritic(sample, log_prob, q_values)


def make_sac(
    spec: EnvSpec,
    config: SACConfig,
    *,
    critic_target: CriticTarget | None = None,
    actor_objective: ActorObjective = q_objective,
    updates_per_step: int | None = None,
) -> Agent:
    """Build soft actor-critic for an environment's sizes.

    Args:
      spec: sizes.
      config: sizes and rates.
      critic_target: what the critics regress to; TD(0) if None.
      actor_objective: how the policy is improved.
      updates_per_step: updates per environment step; `config.utd_ratio` if None.
    """
    policy_net, critic_net = make_networks(spec, config)
    nets = make_actor_critic(policy_net, critic_net)
    target_fn = critic_target or td0_target(config.gamma)
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

    def policy(state: SACState) -> Policy:
        return lambda key, observation: nets.sample(key, state.policy, observation)[0]

    def deterministic(state: SACState, observation: jax.Array) -> jax.Array:
        mean_log_std = policy_net.apply(state.policy, observation)
        return jnp.tanh(distributions.split_mean_log_std(mean_log_std)[0])

    def act(key: jax.Array, state: SACState, view, memory: tuple[()], env: EnvState, explore: bool):
        del view
        if explore:
            return policy(state)(key, env.observation), memory
        return deterministic(state, env.observation), memory

    def update_critics(key: jax.Array, state: SACState, view: PyTree, batch: PyTree):
        goal = target_fn(key, nets, state, view, batch)

        def loss(critics):
            q = nets.q_values(critics, goal.observation, goal.action)
            return critic_loss(q, goal.target, goal.weight), jnp.mean(q)

        (value, q_mean), gradient = jax.value_and_grad(loss, has_aux=True)(state.critics)
        updates, optimizer_state = optimizer.update(gradient, state.critic_optimizer)
        critics = optax.apply_updates(state.critics, updates)
        target_critics = optax.incremental_update(critics, state.target_critics, config.tau)
        state = state._replace(
            critics=critics, target_critics=target_critics, critic_optimizer=optimizer_state
        )
        return state, {"sac/critic_loss": value, "sac/q_mean": q_mean}

    def update_policy(key: jax.Array, state: SACState, view: PyTree, batch: PyTree):
        def loss(policy):
            return actor_objective(key, nets, policy, state, view, batch)

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

    @jax.named_scope("gradient_step")
    def update(
        key: jax.Array, state: SACState, view: PyTree, batch: PyTree
    ) -> tuple[SACState, Metrics]:
        critic_key, policy_key = jax.random.split(key)
        state, critic_metrics = update_critics(critic_key, state, view, batch)
        state, log_prob, policy_metrics = update_policy(policy_key, state, view, batch)
        state = update_temperature(state, log_prob)
        return state, {**critic_metrics, **policy_metrics, "sac/alpha": jnp.exp(state.log_alpha)}

    return Agent(
        init=init,
        begin=lambda: (),
        act=act,
        update=update,
        updates_per_step=config.utd_ratio if updates_per_step is None else updates_per_step,
        batch_size=config.batch_size,
        policy=policy,
        deterministic=deterministic,
        log_prob=lambda state, observation, action: nets.log_prob(
            state.policy, observation, action
        ),
    )
