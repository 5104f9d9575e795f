"""Policy search on long model rollouts, by any estimator of the gradient laboratory.

The policy climbs, in the model and from the states in which episodes began, the return of
`laboratory.problems.searched`. An estimator that needs a critic gets a learned baseline that knows
the time: what is left to be paid depends on how many of the T steps are left.

With an ensemble, each elite has its share of the rollouts, from which the estimator makes a
gradient of its own; the update follows their mean. So baselines and weights that come from a batch
come from one elite's share of it, and no elite is asked about another's rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from mbpo_jax import replay
from mbpo_jax.algorithms.parts import make_model, without_refresh
from mbpo_jax.config import ESTIMATORS, Config, PolicySearchConfig
from mbpo_jax.envs.base import episode_limit
from mbpo_jax.errors import ConfigError
from mbpo_jax.laboratory.estimators import likelihood_ratio
from mbpo_jax.laboratory.estimators.catalogue import draw_one, lacking, load_estimator
from mbpo_jax.laboratory.problems.dynamics import System, make_learned_system, make_true_system
from mbpo_jax.laboratory.problems.problem import Problem, Trajectory, roll_out
from mbpo_jax.laboratory.problems.searched import make_searched_problem
from mbpo_jax.models.ensemble import select_members
from mbpo_jax.nets import distributions, networks
from mbpo_jax.types import (
    Agent,
    Algorithm,
    Env,
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


class Search(NamedTuple):
    """The networks, and where they are improved.

    Attributes:
      env: the environment.
      config: of the run.
      policy_net: `observation [..., O] -> [..., 2 A]`.
      baseline_net: `observation and elapsed part of the horizon [..., O + 1] -> [..., 1]`; None
        where the estimator needs no critic.
      optimizer: of all parameters.
      horizon: steps of a model rollout (T).
      shares: parts of a batch that have an elite each.
      rows: rollouts of a share.
    """

    env: Env
    config: Config
    policy_net: networks.Network
    baseline_net: networks.Network | None
    optimizer: optax.GradientTransformation
    horizon: int
    shares: int
    rows: int

    @property
    def settings(self) -> PolicySearchConfig:
        """The algorithm's own."""
        return self.config.policy_search


def make_search(env: Env, config: Config) -> Search:
    """Build networks and optimizer.

    Raises:
      ConfigError: the estimator needs what there is not.
    """
    settings, spec = config.policy_search, env.spec
    optimizer = optax.adam(settings.learning_rate)
    if settings.max_gradient_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(settings.max_gradient_norm), optimizer)
    # One elite follows a trajectory to its end, so that its rows can be kept apart.
    apart = config.model == "learned" and settings.propagation == "trajectory"
    shares = config.ensemble.num_elites if apart else 1
    record = load_estimator(settings.gradient).record
    search = Search(
        env=env,
        config=config,
        policy_net=tanh_network(settings, spec.observation_size, 2 * spec.action_size),
        baseline_net=tanh_network(settings, spec.observation_size + 1, 1)
        if "critic" in record.needs
        else None,
        optimizer=optimizer,
        horizon=settings.horizon or episode_limit(spec),
        shares=shares,
        rows=-(-settings.num_rollouts // shares),
    )
    check_estimator(search)
    return search


def tanh_network(settings: PolicySearchConfig, inputs: int, outputs: int) -> networks.Network:
    """Build one of the networks."""
    return networks.make_mlp(inputs, settings.hidden_sizes, outputs, activation=jnp.tanh)


def check_estimator(search: Search) -> None:
    """Refuse an estimator that needs what there is not.

    Raises:
      ConfigError: with the names of those that can be used.
    """
    # Nothing of it is called, only asked what there is.
    policy = jax.eval_shape(search.policy_net.init, jax.random.key(0))
    params = jax.eval_shape(lambda policy: ravel_pytree(policy)[0], policy)
    system = make_system(search, None)
    problem = problem_of(search, system, params, lambda params: params, ())

    def why_not(name: str) -> str | None:
        if load_estimator(name).record.over_batches:
            return "many batches at once, and an update has one"
        with_critic = problem._replace(critic=lambda params, horizon: None)  # which is made for it
        return lacking(name, with_critic, search.horizon, search.rows)

    name = search.settings.gradient
    if why := why_not(name):
        able = ", ".join(known for known in ESTIMATORS if not why_not(known))
        raise ConfigError(f"policy_search.gradient: {name} needs {why}; use one of: {able}")


def make_system(search: Search, members: PyTree) -> System:
    """Build what the policy acts in: what some elites predict, or the true system."""
    propagation = search.settings.propagation
    if search.config.model == "oracle":
        return make_true_system(search.env, propagation)
    return make_learned_system(search.env, search.config, members, propagation)


def moments(search: Search, policy: PyTree, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and log standard deviation `[..., A]` of the Gaussian before the tanh."""
    return distributions.split_mean_log_std(search.policy_net.apply(policy, observation))


def problem_of(search: Search, system: System, params, restore, baseline: PyTree) -> Problem:
    """Build the problem of a policy's parameters `[P]`, which `restore` makes the network's.

    Args:
      search: networks and settings.
      system: what the policy acts in.
      params: `[P]`.
      restore: from `[P]` to what the policy's network takes.
      baseline: parameters of the value network; () without one.
    """
    net = search.baseline_net

    def value(observation: jax.Array, elapsed: jax.Array) -> jax.Array:
        assert net is not None
        return net.apply(baseline, jnp.append(observation, elapsed))[0]

    return make_searched_problem(
        search.env.spec,
        system,
        params,
        lambda policy, observation: moments(search, policy, observation),
        restore,
        gamma=search.settings.gamma,
        entropy_weight=search.settings.entropy_weight,
        value=value if net else None,
    )


class Climb(NamedTuple):
    """What an update finds in the model.

    Attributes:
      gradient: of J, as the policy's parameters.
      made: the rollouts `[shares, rows]`.
      target: what the baseline regresses to, `[shares, rows, T]`; () without one.
    """

    gradient: PyTree
    made: Trajectory
    target: jax.Array | tuple[()]


def climb(key: jax.Array, search: Search, state: SearchState, view: PyTree, batch: Transition):
    """Estimate the gradient by rollouts from where transitions `[shares * rows]` began.

    Args:
      key: a key, used up.
      search: networks and settings.
      state: of policy and baseline.
      view: of the model.
      batch: transitions, of which the beginnings count.

    Returns:
      A `Climb`.
    """
    name, settings = search.settings.gradient, search.config.estimator
    estimator = load_estimator(name)
    params, restore = ravel_pytree(state.policy.params)
    baseline = state.baseline.params if state.baseline else ()
    points = jax.tree.map(
        lambda x: x.reshape(search.shares, search.rows, *x.shape[1:]),
        (batch.observation, batch.simulator),
    )

    def of_share(share: jax.Array, keys: jax.Array, points: PyTree):
        apart = search.shares > 1
        system = make_system(search, select_members(view, share[None]) if apart else view)
        problem = problem_of(search, system, params, restore, baseline)

        def noise_from(key: jax.Array, observation: jax.Array, simulator: PyTree):
            def begin(key: jax.Array) -> PyTree:
                return system.begin(key, observation, simulator)

            return draw_one(key, name, problem._replace(start=begin), search.horizon)

        noise = jax.vmap(noise_from)(keys, *points)
        found = estimator.estimate(settings, params, problem, noise)
        made = found.made
        if made is None:
            made = jax.vmap(lambda noise: roll_out(params, problem, noise))(noise)
        made = jax.lax.stop_gradient(made)
        return found.gradient, made, targets(search, problem, made)

    keys = jax.random.split(key, (search.shares, search.rows))
    gradients, made, target = jax.vmap(of_share)(jnp.arange(search.shares), keys, points)
    return Climb(restore(jnp.mean(gradients, axis=0)), made, target)


def targets(search: Search, problem: Problem, made: Trajectory) -> jax.Array | tuple[()]:
    """Return the lambda-returns `[rows, T]` of rollouts, bonus included; () without a baseline."""
    if problem.critic is None:
        return ()
    critic = problem.critic(problem.params, search.horizon)

    def one(made: Trajectory) -> jax.Array:
        advantage = likelihood_ratio.generalised_advantage(
            problem, made, critic, search.config.estimator.gae_decay
        )
        return advantage + likelihood_ratio.values(critic, made)

    return jax.vmap(one)(made)


def alive(made: Trajectory) -> jax.Array:
    """Return 1 for the steps `[..., T]` that were made before the end of a rollout, else 0."""
    return made.state.alive[..., :-1].astype(made.reward.dtype)


def baseline_loss(params: PyTree, search: Search, made: Trajectory, target: jax.Array) -> jax.Array:
    """Return half the mean squared error of the baseline at steps before a termination."""
    assert search.baseline_net is not None
    observation = made.state.observation[..., :-1, :]
    elapsed = jnp.arange(search.horizon, dtype=observation.dtype) / search.horizon
    elapsed = jnp.broadcast_to(elapsed[:, None], (*observation.shape[:-1], 1))
    inputs = jnp.concatenate([observation, elapsed], axis=-1)
    error = jnp.square(search.baseline_net.apply(params, inputs)[..., 0] - target)
    steps = alive(made)
    return 0.5 * jnp.sum(steps * error) / jnp.sum(steps)


def descend(
    search: Search, trained: Trained, gradient: PyTree
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


def rollout_metrics(search: Search, made: Trajectory) -> Metrics:
    """Report discounted return, length and entropy per step of the model rollouts."""
    steps, settings = alive(made), search.settings
    weight = settings.gamma ** jnp.arange(search.horizon, dtype=made.reward.dtype)
    # What is paid after a termination is 0, and so is the log-density.
    paid = made.reward + settings.entropy_weight * made.log_prob
    return {
        "policy_search/model_return": jnp.mean(paid @ weight),
        "policy_search/length": jnp.mean(jnp.sum(steps, axis=-1)),
        "policy_search/entropy": -jnp.sum(made.log_prob) / jnp.sum(steps),
    }


def make_policy_search(env: Env, config: Config) -> Algorithm:
    """Assemble policy search in the model, from initial states of replay."""
    model = make_model(env, config)
    search = make_search(env, config)

    def update(
        key: jax.Array, state: SearchState, view: PyTree, batch: Transition
    ) -> tuple[SearchState, Metrics]:
        found = climb(key, search, state, view, batch)
        downhill = jax.tree.map(jnp.negative, found.gradient)
        policy, norm, skipped = descend(search, state.policy, downhill)
        metrics = rollout_metrics(search, found.made)
        metrics |= {"policy_search/gradient_norm": norm, "policy_search/skipped": skipped}
        baseline = state.baseline
        if baseline:
            loss, gradient = jax.value_and_grad(baseline_loss)(
                baseline.params, search, found.made, found.target
            )
            baseline, _, _ = descend(search, baseline, gradient)
            metrics["policy_search/baseline_loss"] = loss
        return SearchState(policy, baseline), metrics

    return Algorithm(make_agent(search, update), without_refresh(replay.sample_initial), model)


def make_agent(search: Search, update) -> Agent:
    """Build an agent that acts by the policy's network.

    Args:
      search: networks and settings.
      update: `(key, SearchState, view, batch) -> (SearchState, Metrics)`.
    """

    def start(key: jax.Array, net: networks.Network) -> Trained:
        params = net.init(key)
        return Trained(params, search.optimizer.init(params))

    def init(key: jax.Array) -> SearchState:
        policy_key, baseline_key = jax.random.split(key)
        baseline = start(baseline_key, search.baseline_net) if search.baseline_net else ()
        return SearchState(start(policy_key, search.policy_net), baseline)

    def policy(state: SearchState) -> Policy:
        def sample(key: jax.Array, observation: jax.Array) -> jax.Array:
            mean, log_std = moments(search, state.policy.params, observation)
            return distributions.tanh_normal(mean, log_std, jax.random.normal(key, mean.shape))[0]

        return sample

    def deterministic(state: SearchState, observation: jax.Array) -> jax.Array:
        return jnp.tanh(moments(search, state.policy.params, observation)[0])

    def act(key: jax.Array, state: SearchState, view, memory, env: EnvState, explore: bool):
        del view
        if explore:
            return policy(state)(key, env.observation), memory
        return deterministic(state, env.observation), memory

    return Agent(
        init=init,
        begin=lambda: (),
        act=act,
        update=update,
        updates_per_step=search.settings.utd_ratio,
        batch_size=search.shares * search.rows,
        policy=policy,
        deterministic=deterministic,
    )
