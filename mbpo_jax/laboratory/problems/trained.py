"""Problems made of what a run has learned: its policy and critics, in its model or in the truth.

Both start from real states. Their return is that of H steps and the critics' value of the last
state, without the entropy's bonus; nothing is paid after a termination. The parameters are those of
the policy.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from mbpo_jax import replay
from mbpo_jax.agents.sac import ActorCritic, SACState, make_actor_critic, make_networks
from mbpo_jax.config import Config
from mbpo_jax.envs.base import episode_limit, step_or_reset
from mbpo_jax.envs.termination import never, rule_of
from mbpo_jax.laboratory.problems.problem import Critic, Gaussian, Problem
from mbpo_jax.models.ensemble import EnsembleState, make_ensemble, select_members
from mbpo_jax.nets.distributions import split_mean_log_std
from mbpo_jax.types import Env, EnvState, Point, PyTree

VALUE_DRAWS = 8
"""Actions over which the critics' value of a state is averaged."""


class Imagined(NamedTuple):
    """A state of the learned system.

    Attributes:
      observation: `[O]`.
      alive: `[]`, 1 until a termination is predicted, then 0.
      paid: `[]`, the reward with which the state was entered.
      member: int32, the elite that predicts the whole trajectory (TS-infinity of Chua et al. 2018).
    """

    observation: jax.Array
    alive: jax.Array
    paid: jax.Array
    member: jax.Array


class Real(NamedTuple):
    """A state of the true system.

    Attributes:
      observation: `[O]`.
      alive: `[]`, 1 until the episode terminates, then 0.
      paid: `[]`, the reward with which the state was entered.
      simulator: of the environment.
      noise: `[K]` uint32, what makes the system's own noise, if it has any.
    """

    observation: jax.Array
    alive: jax.Array
    paid: jax.Array
    simulator: PyTree
    noise: jax.Array


def replayed(key: jax.Array, real: replay.ReplayState, num_states: int) -> Point:
    """Draw states `[N]` from the replay buffer; their simulator is () where none is kept."""
    batch = replay.sample(key, real, (num_states,))
    return Point(batch.observation, batch.simulator)


def visited(
    key: jax.Array, env: Env, config: Config, agent: SACState, num_states: int, num_envs: int = 8
) -> Point:
    """Let the policy act, with its noise, in several environments, and return where they were.

    States are evenly spaced in time over an episode of full length or more.

    Args:
      key: a key, used up.
      env: the true system.
      config: of the run.
      agent: its state.
      num_states: N, a multiple of the environments.
      num_envs: environments side by side.

    Returns:
      States `[N]` with their simulators.
    """
    sample = actor_critic(env, config).sample
    looks = num_states // num_envs
    spacing = -(-episode_limit(env.spec) // looks)

    def act(state: EnvState, key: jax.Array) -> tuple[EnvState, None]:
        def one(key: jax.Array, state: EnvState) -> EnvState:
            act_key, env_key = jax.random.split(key)
            action, _ = sample(act_key, agent.policy, state.observation)
            return step_or_reset(env, env_key, state, action)[0]

        return jax.vmap(one)(jax.random.split(key, num_envs), state), None

    def look(state: EnvState, keys: jax.Array) -> tuple[EnvState, Point]:
        seen = Point(state.observation, state.simulator)
        return jax.lax.scan(act, state, keys)[0], seen

    reset_key, steps_key = jax.random.split(key)
    start = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
    _, points = jax.lax.scan(look, start, jax.random.split(steps_key, (looks, spacing)))
    return jax.tree.map(lambda x: x.reshape(looks * num_envs, *x.shape[2:]), points)


def actor_critic(env: Env, config: Config) -> ActorCritic:
    """Return the functions of a run's networks."""
    return make_actor_critic(*make_networks(env.spec, config.sac))


def make_learned_problem(
    env: Env, config: Config, agent: SACState, model: EnsembleState, starts: Point
) -> Problem:
    """Build the problem of a run's policy in its own ensemble.

    Every elite is asked in every step, and one of them followed.

    Args:
      env: tells sizes and terminations.
      config: of the run.
      agent: its state.
      model: of its ensemble.
      starts: real states `[N]`, one of which is drawn for every trajectory.
    """
    known = rule_of(env, config.env.termination)
    ensemble = make_ensemble(
        env.spec,
        config.ensemble,
        optax.adam(config.fit.learning_rate),
        learned_termination=known is None,
    )
    elites = select_members(model, model.elites)
    num_elites = model.elites.shape[0]

    def asked(state: Imagined, action: jax.Array):
        rows = [jnp.broadcast_to(x, (num_elites, 1, *x.shape)) for x in (state.observation, action)]
        outcome = ensemble.predict(elites, *rows)
        return jax.tree.map(lambda x: x[state.member, 0], outcome)

    def outcome(state: Imagined, action: jax.Array) -> Gaussian:
        predicted = asked(state, action)
        return Gaussian(predicted.mean, predicted.std)

    def advance(state: Imagined, action: jax.Array, outcome: jax.Array) -> Imagined:
        if known is not None:
            ended = known(outcome[1:])
        else:
            # Without a draw of its own, the likelier of going on and terminating.
            ended = asked(state, action).termination_logit > 0.0
        alive = state.alive * (1.0 - ended.astype(outcome.dtype))
        return Imagined(outcome[1:], alive, outcome[0], state.member)

    def start(key: jax.Array) -> Imagined:
        row_key, member_key = jax.random.split(key)
        row = jax.random.randint(row_key, (), 0, starts.observation.shape[0])
        member = jax.random.randint(member_key, (), 0, num_elites)
        one = jnp.ones((), starts.observation.dtype)
        return Imagined(starts.observation[row], one, jnp.zeros_like(one), member)

    problem = policy_problem("learned model", env, config, agent, start, advance)
    return problem._replace(
        outcome=outcome,
        outcome_size=1 + env.spec.observation_size,
        smooth=known is never,
        moving=("observation",),
    )


def make_true_problem(env: Env, config: Config, agent: SACState, starts: Point) -> Problem:
    """Build the problem of a run's policy in its real environment.

    Args:
      env: the true system.
      config: of the run.
      agent: its state.
      starts: real states `[N]` with their simulators.
    """

    def advance(state: Real, action: jax.Array, outcome: jax.Array) -> Real:
        del outcome
        key, next_key = jax.random.split(jax.random.wrap_key_data(state.noise))
        before = EnvState(state.simulator, state.observation, jnp.int32(0), jnp.bool_(False))
        after, made = env.step(key, before, action)
        return Real(
            observation=made.next_observation,
            alive=state.alive * made.discount,
            paid=made.reward,
            simulator=after.simulator,
            noise=jax.random.key_data(next_key),
        )

    def start(key: jax.Array) -> Real:
        row_key, noise_key = jax.random.split(key)
        row = jax.random.randint(row_key, (), 0, starts.observation.shape[0])
        observation, simulator = jax.tree.map(lambda x: x[row], tuple(starts))
        one = jnp.ones((), observation.dtype)
        noise = jax.random.key_data(noise_key)
        return Real(observation, one, jnp.zeros_like(one), simulator, noise)

    problem = policy_problem("true system", env, config, agent, start, advance)
    # A state holds the observation beside the simulator it was made from, so no part tells alone.
    return problem._replace(
        smooth=env.terminated is never, differentiable=env.differentiable, moving=()
    )


def policy_problem(
    name: str,
    env: Env,
    config: Config,
    agent: SACState,
    start: Callable[[jax.Array], PyTree],
    advance: Callable[[PyTree, jax.Array, jax.Array], PyTree],
) -> Problem:
    """Build the problem of a run's policy in any system.

    Args:
      name: of the system.
      env: tells sizes.
      config: of the run.
      agent: its state.
      start: see `Problem`.
      advance: see `Problem`; states have an observation, say whether they are alive, and what was
        paid on the way.
    """
    policy_net, _ = make_networks(env.spec, config.sac)
    q_values = actor_critic(env, config).q_values
    params, restore = ravel_pytree(agent.policy)
    # In pairs of opposite sign, so that a value linear in the action is told exactly.
    half = jax.random.normal(jax.random.key(0), (VALUE_DRAWS // 2, env.spec.action_size))
    draws = jnp.concatenate([half, -half])

    def policy(params: jax.Array, state: PyTree) -> Gaussian:
        mean, log_std = split_mean_log_std(policy_net.apply(restore(params), state.observation))
        return Gaussian(mean, jnp.exp(log_std))

    def q(state: PyTree, raw: jax.Array) -> jax.Array:
        return jnp.min(q_values(agent.critics, state.observation, jnp.tanh(raw)))

    def value(params: jax.Array, state: PyTree) -> jax.Array:
        law = policy(params, state)
        raw = law.mean[None] + law.std[None] * draws
        return state.alive * jnp.mean(jax.vmap(lambda u: q(state, u))(raw))

    def critic(params: jax.Array, horizon: int) -> Critic:
        del horizon
        return Critic(
            value=lambda time, state: value(params, state),
            action_value=lambda time, state, raw: state.alive * q(state, raw),
        )

    return Problem(
        name=f"{env.spec.name}, {name}",
        params=params,
        action_size=env.spec.action_size,
        start=start,
        policy=policy,
        squash=jnp.tanh,
        advance=advance,
        reward=lambda state, action, following: state.alive * following.paid,
        terminal=lambda state: value(params, state),
        gamma=config.sac.gamma,
        critic=critic,
    )
