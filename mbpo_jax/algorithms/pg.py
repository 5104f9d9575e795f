"""Likelihood-ratio policy gradient on model rollouts (Williams 1992; version 2.5).

No derivative of the model is asked for. Advantages are those of Schulman et al. 2016
(arXiv:1506.02438), over a learned baseline that knows the time: what is left to be paid depends on
how many of the T steps are left, and nothing is expected after the last.
"""

import jax
import jax.numpy as jnp

from mbpo_jax import replay
from mbpo_jax.agents.targets import lambda_return
from mbpo_jax.algorithms.parts import make_model, without_refresh
from mbpo_jax.algorithms.policy_search import (
    PolicySearch,
    Rollouts,
    SearchState,
    Trained,
    alive,
    descend,
    make_search,
    make_search_agent,
    moments,
    roll_out,
    rollout_metrics,
    soft_rewards,
    step_weights,
)
from mbpo_jax.config import Config, PolicySearchConfig
from mbpo_jax.nets.networks import Network, make_mlp
from mbpo_jax.types import Algorithm, Env, EnvSpec, Metrics, PyTree, Transition


def make_baseline(spec: EnvSpec, config: PolicySearchConfig) -> Network:
    """Build the value network, which sees observation and time."""
    return make_mlp(spec.observation_size + 1, config.hidden_sizes, 1, activation=jnp.tanh)


def baseline_values(net: Network, params: PyTree, observation: jax.Array) -> jax.Array:
    """Return `V(s_t, t / T)`, `[T, B]`, of observations `[T, B, O]`."""
    num_steps = observation.shape[0]
    time = (jnp.arange(num_steps, dtype=jnp.float32) / num_steps)[:, None, None]
    time = jnp.broadcast_to(time, (*observation.shape[:-1], 1))
    return net.apply(params, jnp.concatenate([observation, time], axis=-1))[..., 0]


def returns(made: Rollouts, value: jax.Array, config: PolicySearchConfig) -> jax.Array:
    """Return the lambda-returns `[T, B]` of soft rewards, with nothing left after the last step.

    Less the values, they are the generalised advantage estimates.
    """
    return lambda_return(
        reward=soft_rewards(made, config),
        discount=made.discount,
        next_value=jnp.concatenate([value[1:], jnp.zeros_like(value[:1])]),
        entropy_bonus=jnp.zeros_like(value[1:]),
        gamma=config.gamma,
        decay=config.gae_decay,
    )


def score_function(mean: jax.Array, log_std: jax.Array, noise: jax.Array) -> jax.Array:
    """Return numbers `[...]` whose gradient is that of `log pi` at fixed actions.

    With `x = mean + std * noise` held fixed, the gradient of a Gaussian's log-density at x is
    `noise / std` in the mean and `noise^2 - 1` in the log standard deviation. The tanh after it
    changes the density by a factor that depends on x alone. So no action has to be taken back
    through the tanh, which float32 could not do near the edge.

    Args:
      mean: `[..., A]`.
      log_std: `[..., A]`.
      noise: `[..., A]` standard normal.
    """
    slope = jax.lax.stop_gradient(noise * jnp.exp(-log_std))
    return jnp.sum(slope * mean + (jnp.square(noise) - 1.0) * log_std, axis=-1)


def likelihood_ratio_loss(
    policy: PyTree, search: PolicySearch, made: Rollouts, advantage: jax.Array
) -> jax.Array:
    """Return a number whose gradient estimates that of `-J`.

    `grad J = E[sum_t gamma^t A_t grad log pi(a_t | s_t)]` over the steps before a termination. The
    soft rewards, and so the advantages, hold `-w log pi`; that they depend on the policy themselves
    adds nothing, as the expectation of `grad log pi` is 0.
    """
    score = score_function(*moments(search, policy, made.observation), made.noise)
    weight = step_weights(made, search.config.gamma)
    return -jnp.mean(jnp.sum(weight * advantage * score, axis=0))


def baseline_loss(params: PyTree, net: Network, made: Rollouts, target: jax.Array) -> jax.Array:
    """Return half the mean squared error of the baseline at steps before a termination."""
    steps = alive(made)
    error = jnp.square(baseline_values(net, params, made.observation) - target)
    return 0.5 * jnp.sum(steps * error) / jnp.sum(steps)


def make_pg(env: Env, config: Config) -> Algorithm:
    """Assemble the policy gradient on model rollouts, from initial states of replay."""
    model = make_model(env, config)
    search = make_search(env.spec, config.search)
    net = make_baseline(env.spec, config.search)

    def update(
        key: jax.Array, state: SearchState, view: PyTree, batch: Transition
    ) -> tuple[SearchState, Metrics]:
        assert isinstance(state.baseline, Trained)
        made = roll_out(key, search, model, view, state.policy.params, batch)
        value = baseline_values(net, state.baseline.params, made.observation)
        target = returns(made, value, config.search)
        gradient = jax.grad(likelihood_ratio_loss)(
            state.policy.params, search, made, target - value
        )
        loss, baseline_gradient = jax.value_and_grad(baseline_loss)(
            state.baseline.params, net, made, target
        )
        policy, norm, skipped = descend(search, state.policy, gradient)
        baseline, _, _ = descend(search, state.baseline, baseline_gradient)
        metrics = rollout_metrics("pg", made, config.search)
        metrics |= {"pg/baseline_loss": loss, "pg/gradient_norm": norm, "pg/skipped": skipped}
        return SearchState(policy, baseline), metrics

    agent = make_search_agent(search, update, net)
    return Algorithm(agent, without_refresh(replay.sample_initial), model)
