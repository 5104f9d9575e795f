"""Backpropagation through model and policy (version 2.0): the pathwise policy gradient.

The whole rollout is differentiated, so the gradient is a sum of products of up to T Jacobians of
the model and can explode or vanish with T. Limits are switches: to cut it after a number of steps,
or to shorten what is passed from a state to the one before it, both of which bias it.
"""

import jax
import jax.numpy as jnp

from mbpo_jax import replay
from mbpo_jax.algorithms.parts import make_model, without_refresh
from mbpo_jax.algorithms.policy_search import (
    PolicySearch,
    Rollouts,
    SearchState,
    descend,
    make_search,
    make_search_agent,
    roll_out,
    rollout_metrics,
    soft_return,
)
from mbpo_jax.config import Config
from mbpo_jax.types import Algorithm, DynamicsModel, Env, Metrics, PyTree, Transition


def pathwise_gradient(
    key: jax.Array,
    search: PolicySearch,
    model: DynamicsModel,
    view: PyTree,
    policy: PyTree,
    batch: Transition,
) -> tuple[PyTree, Rollouts]:
    """Return the estimate of the gradient of `-J` by rollouts from where transitions `[B]` began.

    It is the mean of the rows' own gradients, whose limit does not depend on how many there are.
    """
    config = search.config

    def loss(policy: PyTree) -> tuple[jax.Array, Rollouts]:
        made = roll_out(
            key,
            search,
            model,
            view,
            policy,
            batch,
            max_cotangent_norm=config.max_cotangent_norm,
            truncation=config.truncation,
        )
        return -jnp.sum(soft_return(made, config)), made

    total, made = jax.grad(loss, has_aux=True)(policy)
    return jax.tree.map(lambda x: x / batch.reward.shape[0], total), made


def make_bptt(env: Env, config: Config) -> Algorithm:
    """Assemble backpropagation through the model, from initial states of replay."""
    model = make_model(env, config)
    search = make_search(env.spec, config.search)

    def update(
        key: jax.Array, state: SearchState, view: PyTree, batch: Transition
    ) -> tuple[SearchState, Metrics]:
        gradient, made = pathwise_gradient(key, search, model, view, state.policy.params, batch)
        policy, norm, skipped = descend(search, state.policy, gradient)
        metrics = rollout_metrics("bptt", made, config.search)
        metrics |= {"bptt/gradient_norm": norm, "bptt/skipped": skipped}
        return state._replace(policy=policy), metrics

    agent = make_search_agent(search, update)
    return Algorithm(agent, without_refresh(replay.sample_initial), model)
