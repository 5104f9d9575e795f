"""Problems made of what a run has learned: its policy and critics, in its model or in the truth.

Both start from real states. Their return is that of H steps and the critics' value of the last
state, without the entropy's bonus; nothing is paid after a termination. The parameters are those of
the policy.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mbpo_jax import replay
from mbpo_jax.agents.actor_critic import (
    ActorCritic,
    SACState,
    make_actor_critic,
    make_networks,
    moments,
)
from mbpo_jax.config import Config
from mbpo_jax.envs.base import episode_limit, step_or_reset
from mbpo_jax.laboratory.problems.dynamics import System, make_learned_system, make_true_system
from mbpo_jax.laboratory.problems.problem import Critic, Gaussian, Problem
from mbpo_jax.models.ensemble import EnsembleState, select_members
from mbpo_jax.types import Env, EnvState, Point, PyTree

VALUE_DRAWS = 8
"""Actions over which the critics' value of a state is averaged."""


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
    explore = actor_critic(env, config, agent).explore
    looks = num_states // num_envs
    spacing = -(-episode_limit(env.spec) // looks)

    def act(state: EnvState, key: jax.Array) -> tuple[EnvState, None]:
        def one(key: jax.Array, state: EnvState) -> EnvState:
            act_key, env_key = jax.random.split(key)
            action = explore(act_key, agent.policy, state.observation)
            return step_or_reset(env, env_key, state, action)[0]

        return jax.vmap(one)(jax.random.split(key, num_envs), state), None

    def look(state: EnvState, keys: jax.Array) -> tuple[EnvState, Point]:
        seen = Point(state.observation, state.simulator)
        return jax.lax.scan(act, state, keys)[0], seen

    reset_key, steps_key = jax.random.split(key)
    start = jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))
    _, points = jax.lax.scan(look, start, jax.random.split(steps_key, (looks, spacing)))
    return jax.tree.map(lambda x: x.reshape(looks * num_envs, *x.shape[2:]), points)


def actor_critic(env: Env, config: Config, agent: SACState) -> ActorCritic:
    """Return the functions of a run's networks."""
    return make_actor_critic(make_networks(env.spec, config.sac), config.sac, agent)


def make_learned_problem(
    env: Env, config: Config, agent: SACState, model: EnsembleState, starts: Point
) -> Problem:
    """Build the problem of a run's policy in its own ensemble, one elite to a trajectory.

    Args:
      env: tells sizes and terminations.
      config: of the run.
      agent: its state.
      model: of its ensemble.
      starts: real states `[N]`, one of which is drawn for every trajectory.
    """
    system = make_learned_system(env, config, select_members(model, model.elites))
    return policy_problem(env, config, agent, system, starts)


def make_true_problem(env: Env, config: Config, agent: SACState, starts: Point) -> Problem:
    """Build the problem of a run's policy in its real environment.

    Args:
      env: the true system.
      config: of the run.
      agent: its state.
      starts: real states `[N]` with their simulators.
    """
    return policy_problem(env, config, agent, make_true_system(env), starts)


def policy_problem(
    env: Env, config: Config, agent: SACState, system: System, starts: Point
) -> Problem:
    """Build the problem of a run's policy in any system.

    Args:
      env: tells sizes.
      config: of the run.
      agent: its state.
      system: what it acts in.
      starts: real states `[N]`, one of which is drawn for every trajectory.
    """
    networks, nets = make_networks(env.spec, config.sac), actor_critic(env, config, agent)
    params, restore = ravel_pytree(agent.policy)
    # In pairs of opposite sign, so that a value linear in the action is told exactly.
    half = jax.random.normal(jax.random.key(0), (VALUE_DRAWS // 2, env.spec.action_size))
    draws = jnp.concatenate([half, -half])

    def start(key: jax.Array) -> PyTree:
        row_key, own_key = jax.random.split(key)
        row = jax.random.randint(row_key, (), 0, starts.observation.shape[0])
        return system.begin(own_key, *jax.tree.map(lambda x: x[row], tuple(starts)))

    def policy(restored: PyTree, state: PyTree) -> Gaussian:
        mean, log_std = moments(networks, agent, restored, state.observation)
        return Gaussian(mean, jnp.exp(log_std))

    def q(state: PyTree, raw: jax.Array) -> jax.Array:
        return nets.climbed(nets.q_values(agent.critics, state.observation, jnp.tanh(raw)))

    def value(params: jax.Array, state: PyTree) -> jax.Array:
        law = policy(restore(params), state)
        raw = law.mean[None] + law.std[None] * draws
        return jnp.where(state.alive, jnp.mean(jax.vmap(lambda u: q(state, u))(raw)), 0.0)

    def critic(params: jax.Array, horizon: int) -> Critic:
        del horizon
        return Critic(
            value=lambda time, state: value(params, state),
            action_value=lambda time, state, raw: jnp.where(state.alive, q(state, raw), 0.0),
        )

    return Problem(
        name=f"{env.spec.name}, {system.name}",
        params=params,
        action_size=env.spec.action_size,
        start=start,
        policy=policy,
        restore=restore,
        squash=jnp.tanh,
        terminal=lambda state: value(params, state),
        gamma=config.sac.gamma,
        critic=critic,
        **system.parts(),
    )
