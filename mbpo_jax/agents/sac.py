"""Soft actor-critic with automatic temperature (Haarnoja et al. 2018, arXiv:1812.05905).

One loss, one function; equation numbers are of that paper. Losses are means over a batch. What the
critics regress to and how the policy is improved are slots: the algorithms fill them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax import replay
from mbpo_jax.agents import targets
from mbpo_jax.agents.actor_critic import (
    ActorCritic,
    SACState,
    ValueRange,
    followed_range,
    make_actor_critic,
    make_networks,
    moments,
    target_q,
    temperature,
)
from mbpo_jax.config import SACConfig
from mbpo_jax.errors import ConfigError
from mbpo_jax.nets.normalizer import fit_scaler, identity_scaler
from mbpo_jax.types import Agent, EnvSpec, EnvState, Metrics, Policy, PyTree, Transition


class Regression(NamedTuple):
    """What the critics are fitted to.

    Attributes:
      observation: `[B, O]`.
      action: `[B, A]`.
      target: `[B]`.
      weight: `[B]` of each row in the mean; None if all count alike.
      soft_reward: of any shape, rewards with the entropy's bonus that such targets add up, which
        the range of values follows; None if it cannot.
    """

    observation: jax.Array
    action: jax.Array
    target: jax.Array
    weight: jax.Array | None = None
    soft_reward: jax.Array | None = None


CriticTarget = Callable[[jax.Array, ActorCritic, SACState, PyTree, PyTree], Regression]
"""`(key, nets, state, view, batch) -> Regression`; `view` is the dynamics model's."""

ActorObjective = Callable[
    [jax.Array, ActorCritic, PyTree, SACState, PyTree, PyTree], tuple[jax.Array, jax.Array]
]
"""`(key, nets, policy, state, view, batch) -> (loss, log_prob)`, differentiated with respect to the
policy; the temperature is steered by the log-densities."""

TrainingRollout = Callable[[jax.Array, ActorCritic, PyTree, PyTree, PyTree], PyTree]
"""`(key, nets, policy, view, batch) -> batch`: what critics and policy both learn from in the place
of what was drawn, made by the policy, whose gradient goes through it. All of it float32."""


def soft_value(q: jax.Array, log_prob: jax.Array, alpha: jax.Array) -> jax.Array:
    """Return `Q - alpha log pi`, elementwise (eq. 3)."""
    return q - alpha * log_prob


def critic_loss(q: jax.Array, target: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Return half the squared Bellman error (eq. 5), weighted, summed over critics `q [C, B]`."""
    error = jnp.square(q - target[None])
    return 0.5 * jnp.sum(jnp.mean(error if weight is None else weight[None] * error, axis=1))


def policy_loss(q: jax.Array, log_prob: jax.Array, alpha: jax.Array) -> jax.Array:
    """Return the mean of `alpha log pi - Q` (eq. 9) over a batch `[B]`."""
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
    key: jax.Array,
    critics: PyTree,
    nets: ActorCritic,
    state: SACState,
    observation: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Let the policy act once in each observation `[..., O]`.

    Args:
      key: draws the actions.
      critics: target critics, as `ActorCritic.chosen` gives them.
      nets: networks.
      state: of the agent.
      observation: as above.

    Returns:
      The soft values `[...]` by the target critics, and the bonus `-alpha log pi` in them.
    """
    action, log_prob = nets.sample(key, state.policy, observation)
    q = target_q(critics, nets, observation, action)
    alpha = temperature(state)
    return soft_value(q, log_prob, alpha), -alpha * log_prob


def td0_target(gamma: jax.Array | float) -> CriticTarget:
    """Regress to the one-step target (eq. 5)."""

    def target(key, nets, state, view, batch: Transition) -> Regression:
        del view
        key, critics_key = jax.random.split(key)
        critics = nets.chosen(critics_key, state.target_critics)
        value, bonus = next_soft_value(key, critics, nets, state, batch.next_observation)
        value = targets.td0(batch.reward, batch.discount, value, gamma)
        soft_reward = batch.reward + bonus
        return Regression(batch.observation, batch.action, value, soft_reward=soft_reward)

    return target


def q_objective(key, nets, policy, state, view, batch: Transition) -> tuple[jax.Array, jax.Array]:
    """Improve the policy by the critics' gradient at its own action (eq. 9)."""
    del view
    action, log_prob = nets.sample(key, policy, batch.observation)
    q = nets.climbed(nets.q_values(state.critics, batch.observation, action))
    return policy_loss(q, log_prob, temperature(state)), log_prob


def make_sac(
    spec: EnvSpec,
    config: SACConfig,
    *,
    critic_target: CriticTarget | None = None,
    actor_objective: ActorObjective = q_objective,
    training_rollout: TrainingRollout | None = None,
    updates_per_step: int | None = None,
) -> Agent:
    """Build soft actor-critic for an environment's sizes.

    Args:
      spec: sizes.
      config: sizes and rates.
      critic_target: what the critics regress to; TD(0) if None.
      actor_objective: how the policy is improved.
      training_rollout: what both of them learn from; what was drawn, if None.
      updates_per_step: updates per environment step; `config.utd_ratio` if None.
    """
    networks = make_networks(spec, config)
    target_fn = critic_target or td0_target(config.gamma)
    optimizer = optax.adam(config.learning_rate)
    target_entropy = config.target_entropy
    if target_entropy is None:
        target_entropy = -float(spec.action_size)

    def init(key: jax.Array) -> SACState:
        policy_key, critic_key = jax.random.split(key)
        policy, critics = networks.policy.init(policy_key), networks.critics.init(critic_key)
        zero = jnp.float32(0)
        log_alpha = alpha_optimizer = ()
        if config.exploration_noise is None:
            log_alpha = jnp.log(jnp.asarray(config.initial_alpha, jnp.float32))
            alpha_optimizer = optimizer.init(log_alpha)
        return SACState(
            policy=policy,
            critics=critics,
            # A copy: donated buffers must not be shared.
            target_critics=jax.tree.map(jnp.copy, critics),
            log_alpha=log_alpha,
            policy_optimizer=optimizer.init(policy),
            critic_optimizer=optimizer.init(critics),
            alpha_optimizer=alpha_optimizer,
            scaler=identity_scaler(spec.observation_size) if config.scale_observations else (),
            value_range=ValueRange(zero, jnp.copy(zero)) if config.value_range == "rewards" else (),
        )

    def bound(state: SACState) -> ActorCritic:
        return make_actor_critic(networks, config, state)

    def observe(state: SACState, real: replay.ReplayState) -> SACState:
        if not config.scale_observations:
            return state
        found = fit_scaler(real.data.observation, replay.is_valid(real).astype(jnp.float32))
        # Without random steps there is nothing to be seen at first.
        scaler = jax.tree.map(lambda a, b: jnp.where(real.size > 0, a, b), found, state.scaler)
        return state._replace(scaler=scaler)

    def policy(state: SACState) -> Policy:
        return lambda key, observation: bound(state).explore(key, state.policy, observation)

    def deterministic(state: SACState, observation: jax.Array) -> jax.Array:
        return jnp.tanh(moments(networks, state, state.policy, observation)[0])

    def act(key: jax.Array, state: SACState, view, memory: tuple[()], env: EnvState, explore: bool):
        del view
        if explore:
            return policy(state)(key, env.observation), memory
        return deterministic(state, env.observation), memory

    def regress(
        key: jax.Array, state: SACState, view: PyTree, batch: PyTree
    ) -> tuple[SACState, Metrics]:
        goal = target_fn(key, bound(state), state, view, batch)
        if state.value_range:
            if goal.soft_reward is None:
                raise ConfigError(
                    "sac.value_range: the targets of this algorithm do not tell their rewards; let "
                    "its Regression have a soft_reward, or use value_range=free"
                )
            reached = followed_range(state.value_range, goal.soft_reward, config)
            state = state._replace(value_range=reached)
        nets = bound(state)

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

    def climb(
        key: jax.Array,
        state: SACState,
        view: PyTree,
        batch: PyTree,
        pull_back: Callable[[PyTree], tuple[PyTree]] | None,
    ) -> tuple[SACState, jax.Array, Metrics]:
        nets = bound(state)

        def loss(policy, batch):
            return actor_objective(key, nets, policy, state, view, batch)

        if pull_back is None:
            grad = jax.value_and_grad(loss, has_aux=True)
            (value, log_prob), gradient = grad(state.policy, batch)
        else:
            grad = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
            (value, log_prob), (gradient, through) = grad(state.policy, batch)
            gradient = jax.tree.map(jnp.add, gradient, *pull_back(through))
        updates, optimizer_state = optimizer.update(gradient, state.policy_optimizer)
        policy = optax.apply_updates(state.policy, updates)
        state = state._replace(policy=policy, policy_optimizer=optimizer_state)
        return state, log_prob, {"sac/policy_loss": value, "sac/entropy": -jnp.mean(log_prob)}

    def update_temperature(state: SACState, log_prob: jax.Array):
        if isinstance(state.log_alpha, tuple):
            return state
        gradient = jax.grad(temperature_loss)(state.log_alpha, log_prob, target_entropy)
        updates, optimizer_state = optimizer.update(gradient, state.alpha_optimizer)
        log_alpha = optax.apply_updates(state.log_alpha, updates)
        return state._replace(log_alpha=log_alpha, alpha_optimizer=optimizer_state)

    def rolled_out(key: jax.Array, state: SACState, view: PyTree, batch: PyTree):
        """Return what is learned from, and how its gradient comes to the policy."""
        roll_out = training_rollout
        if roll_out is None:
            return batch, None
        nets = bound(state)
        return jax.vjp(lambda policy: roll_out(key, nets, policy, view, batch), state.policy)

    @jax.named_scope("gradient_step")
    def update(
        key: jax.Array, state: SACState, view: PyTree, batch: PyTree
    ) -> tuple[SACState, Metrics]:
        critic_key, policy_key, rollout_key = jax.random.split(key, 3)
        batch, pull_back = rolled_out(rollout_key, state, view, batch)
        state, critic_metrics = regress(critic_key, state, view, batch)
        state, log_prob, policy_metrics = climb(policy_key, state, view, batch, pull_back)
        state = update_temperature(state, log_prob)
        return state, {**critic_metrics, **policy_metrics, "sac/alpha": temperature(state)}

    @jax.named_scope("gradient_step")
    def update_critics(key: jax.Array, state: SACState, view: PyTree, batch: PyTree) -> SACState:
        critic_key, rollout_key = jax.random.split(key)
        batch, _ = rolled_out(rollout_key, state, view, batch)
        return regress(critic_key, state, view, batch)[0]

    return Agent(
        init=init,
        begin=lambda: (),
        act=act,
        update=update,
        updates_per_step=config.utd_ratio if updates_per_step is None else updates_per_step,
        batch_size=config.batch_size,
        policy=policy,
        deterministic=deterministic,
        log_prob=lambda state, observation, action: bound(state).log_prob(
            state.policy, observation, action
        ),
        observe=observe,
        update_critics=update_critics,
        critic_updates=config.critic_updates,
        catches_up=config.catches_up,
    )
