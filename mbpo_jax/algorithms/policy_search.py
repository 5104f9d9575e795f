"""What policy search on long model rollouts shares, whichever way the gradient is estimated.

The policy climbs, in the model and from the states in which episodes began,

    J = E[sum_{t<T} gamma^t (r_t - w log pi(a_t | s_t))],

where the sum ends at a predicted termination and w is the entropy's weight. `bptt` and `pg`
estimate the same gradient of it, one pathwise and one by likelihood ratios.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax.algorithms.expansion import reach
from mbpo_jax.config import PolicySearchConfig
from mbpo_jax.envs.base import episode_limit
from mbpo_jax.models.imagination import imagine
from mbpo_jax.nets import distributions, networks
from mbpo_jax.types import (
    Agent,
    DynamicsModel,
    EnvSpec,
    EnvState,
    Metrics,
    Policy,
    PyTree,
    Transition,
)


class Trained(NamedTuple):
    """Parameters, and the state of the optimizer that moves them."""

    params: PyTree
    optimizer: PyTree


class SearchState(NamedTuple):
    """What an update changes.

    Attributes:
      policy: the tanh-Gaussian's network.
      baseline: the value network; () without one.
    """

    policy: Trained
    baseline: Trained | tuple[()]


class Rollouts(NamedTuple):
    """Model rollouts of the policy; time is the first axis.

    Attributes:
      observation: `[T, B, O]`.
      noise: `[T, B, A]`, standard normal, from which the actions were made.
      log_prob: `[T, B]`, log-densities of the actions.
      reward: `[T, B]`.
      discount: `[T, B]`, 0 where termination is predicted and from there on.
    """

    observation: jax.Array
    noise: jax.Array
    log_prob: jax.Array
    reward: jax.Array
    discount: jax.Array


class PolicySearch(NamedTuple):
    """The policy's network and how it is improved.

    Attributes:
      config: settings.
      policy_net: `observation [..., O] -> [..., 2 A]`.
      optimizer: of all parameters.
      horizon: steps of a model rollout (T).
    """

    config: PolicySearchConfig
    policy_net: networks.Network
    optimizer: optax.GradientTransformation
    horizon: int


def make_search(spec: EnvSpec, config: PolicySearchConfig) -> PolicySearch:
    """Build the policy's network and the optimizer for an environment's sizes."""
    optimizer = optax.adam(config.learning_rate)
    if config.max_gradient_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(config.max_gradient_norm), optimizer)
    policy_net = networks.make_mlp(
        spec.observation_size, config.hidden_sizes, 2 * spec.action_size, activation=jnp.tanh
    )
    return PolicySearch(config, policy_net, optimizer, config.horizon or episode_limit(spec))


def moments(
    search: PolicySearch, policy: PyTree, observation: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return mean and log standard deviation `[..., A]` of the Gaussian before the tanh."""
    return distributions.split_mean_log_std(search.policy_net.apply(policy, observation))


def roll_out(
    key: jax.Array,
    search: PolicySearch,
    model: DynamicsModel,
    view: PyTree,
    policy: PyTree,
    batch: Transition,
    *,
    max_cotangent_norm: jax.Array | float | None = None,
    truncation: int | None = None,
) -> Rollouts:
    """Roll the policy out in the model from where transitions `[B]` began.

    Differentiable with respect to the policy's parameters, within these limits (see `imagine`).
    """

    def act(key: jax.Array, observation: jax.Array):
        mean, log_std = moments(search, policy, observation)
        noise = jax.random.normal(key, mean.shape)
        action, log_prob = distributions.tanh_normal(mean, log_std, noise)
        return action, (noise, log_prob)

    steps, _ = imagine(
        key,
        model,
        view,
        model.start(batch.observation, batch.simulator),
        act,
        horizon=search.horizon,
        propagation=search.config.propagation,
        max_cotangent_norm=max_cotangent_norm,
        truncation=truncation,
    )
    noise, log_prob = steps.aside
    return Rollouts(steps.observation, noise, log_prob, steps.reward, steps.discount)


def alive(made: Rollouts) -> jax.Array:
    """Return 1 for the steps `[T, B]` that were made before the end of a rollout, else 0."""
    return reach(made.discount)[:-1]


def step_weights(made: Rollouts, gamma: jax.Array | float) -> jax.Array:
    """Return `gamma^t` for the steps `[T, B]` before the end of a rollout, else 0."""
    time = jnp.arange(made.reward.shape[0], dtype=jnp.float32)
    return gamma ** time[:, None] * alive(made)


def soft_rewards(made: Rollouts, config: PolicySearchConfig) -> jax.Array:
    """Return `r_t - w log pi(a_t | s_t)`, `[T, B]`."""
    return made.reward - config.entropy_weight * made.log_prob


def soft_return(made: Rollouts, config: PolicySearchConfig) -> jax.Array:
    """Return each rollout's estimate of J, `[B]`."""
    return jnp.sum(step_weights(made, config.gamma) * soft_rewards(made, config), axis=0)


def descend(
    search: PolicySearch, trained: Trained, gradient: PyTree
) -> tuple[Trained, jax.Array, jax.Array]:
    """Make one step of the optimizer, unless the gradient's norm is not finite.

    Returns:
      The parameters, the norm of the gradient before it is limited, and whether the step was
      skipped, 0 or 1.
    """
    norm = optax.tree.norm(gradient)
    updates, optimizer_state = search.optimizer.update(gradient, trained.optimizer)
    moved = Trained(optax.apply_updates(trained.params, updates), optimizer_state)
    skipped = ~jnp.isfinite(norm)
    kept = jax.tree.map(lambda old, new: jnp.where(skipped, old, new), trained, moved)
    return kept, norm, skipped.astype(jnp.float32)


def rollout_metrics(name: str, made: Rollouts, config: PolicySearchConfig) -> Metrics:
    """Report discounted return, length and entropy per step of the model rollouts."""
    steps = alive(made)
    value = jnp.sum(step_weights(made, config.gamma) * made.reward, axis=0)
    return {
        f"{name}/model_return": jnp.mean(value),
        f"{name}/length": jnp.mean(jnp.sum(steps, axis=0)),
        f"{name}/entropy": -jnp.sum(steps * made.log_prob) / jnp.sum(steps),
    }


def make_search_agent(
    search: PolicySearch,
    update: Callable[..., tuple[SearchState, Metrics]],
    baseline_net: networks.Network | None = None,
) -> Agent:
    """Build an agent that acts by the policy's network.

    Args:
      search: the network and its optimizer.
      update: `(key, SearchState, view, batch) -> (SearchState, Metrics)`.
      baseline_net: a value network that is trained, too.
    """

    def start(key: jax.Array, net: networks.Network) -> Trained:
        params = net.init(key)
        return Trained(params, search.optimizer.init(params))

    def init(key: jax.Array) -> SearchState:
        policy_key, baseline_key = jax.random.split(key)
        baseline = start(baseline_key, baseline_net) if baseline_net else ()
        return SearchState(start(policy_key, search.policy_net), baseline)

    def policy(state: SearchState) -> Policy:
        def sample(key: jax.Array, observation: jax.Array) -> jax.Array:
            mean, log_std = moments(search, state.policy.params, observation)
            return distributions.tanh_normal(mean, log_std, jax.random.normal(key, mean.shape))[0]

        return sample

    def act(key: jax.Array, state: SearchState, view, memory, env: EnvState, explore: bool):
        del view
        if explore:
            return policy(state)(key, env.observation), memory
        return jnp.tanh(moments(search, state.policy.params, env.observation)[0]), memory

    return Agent(
        init=init,
        begin=lambda: (),
        act=act,
        update=update,
        updates_per_step=search.config.utd_ratio,
        batch_size=search.config.num_rollouts,
        policy=policy,
    )
