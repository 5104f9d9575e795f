"""Systems given by their equations, and how one becomes an environment."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.envs.termination import never
from mbpo_jax.errors import ConfigError
from mbpo_jax.types import Env, EnvSpec, EnvState, TerminationFn, Transition


class System(NamedTuple):
    """A Markov decision process whose equations are known. `S` numbers make up a state.

    Attributes:
      observation_size: `O`.
      action_size: `A`.
      dt: seconds of simulated time per step.
      initial: `key -> state [S]` float32.
      dynamics: `(key, state, action [A]) -> next state [S]`; the action lies in [-1, 1].
      reward: `(state, action, next state) -> reward []`.
      observe: `state -> observation [O]`.
      terminated: `observation [..., O] -> [...]` bool, read off the successor's observation.
      resume: `state -> state`, where a continuing task goes on from a terminal state, so that no
        episode ends there; None if termination ends an episode.
      mean_dynamics: `(state, action) -> mean of the next state [S]`; None if nothing is random.
      tabular: see `EnvSpec`.
      observed: see `EnvSpec`.
    """

    observation_size: int
    action_size: int
    dt: float
    initial: Callable[[jax.Array], jax.Array]
    dynamics: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    reward: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    observe: Callable[[jax.Array], jax.Array]
    terminated: TerminationFn = never
    resume: Callable[[jax.Array], jax.Array] | None = None
    mean_dynamics: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    tabular: bool = False
    observed: tuple[str, ...] = ()


def make_system_env(name: str, system: System, episode_length: int, action_repeat: int = 1) -> Env:
    """Turn a system into an environment.

    `EnvState.simulator` is the state `[S]` itself, and a step is a function of it, of the key and
    of the action that JAX can differentiate. Actions are clipped to [-1, 1], and the transition
    holds what was carried out.

    Args:
      name: of the environment.
      system: its equations.
      episode_length: time limit in steps of the system; it ends the episode but leaves the
        transition's discount at 1.
      action_repeat: steps of the system per action. A repeat ends at a termination; rewards are
        summed.
    """
    spec = EnvSpec(
        name=name,
        observation_size=system.observation_size,
        action_size=system.action_size,
        episode_length=episode_length,
        action_repeat=action_repeat,
        dt=system.dt * action_repeat,
        tabular=system.tabular,
        observed=system.observed,
    )

    def reset(key: jax.Array) -> EnvState:
        state = system.initial(key)
        return EnvState(state, system.observe(state), jnp.int32(0), jnp.bool_(False))

    def repeat(
        repeats: Sequence[Callable], state: EnvState, action: jax.Array
    ) -> tuple[EnvState, Transition]:
        """Follow one `(state, action) -> next state` after the other."""
        action = jnp.clip(action, -1.0, 1.0)

        following, reward, ended = state.simulator, jnp.zeros(()), jnp.bool_(False)
        # Unrolled, as the equations are short and repeats are few.
        for dynamics in repeats:
            before, after = following, dynamics(following, action)
            if (shape := getattr(after, "shape", type(after).__name__)) != before.shape:
                raise ConfigError(
                    f"env.name: {name}: dynamics makes {shape} of a state {before.shape}; "
                    "initial and dynamics have to agree"
                )
            reward += jnp.where(ended, 0.0, system.reward(before, action, after))
            following = jnp.where(ended, before, after)
            ended |= system.terminated(system.observe(following))
        steps = state.steps + action_repeat
        transition = Transition(
            observation=state.observation,
            action=action,
            reward=reward,
            discount=1.0 - ended.astype(reward.dtype),
            next_observation=system.observe(following),
        )
        done = steps >= episode_length
        if system.resume is None:
            done = ended | done
            return EnvState(following, transition.next_observation, steps, done), transition
        following = jnp.where(ended, system.resume(following), following)
        return EnvState(following, system.observe(following), steps, done), transition

    def step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        keys = jax.random.split(key, action_repeat)
        return repeat([functools.partial(system.dynamics, k) for k in keys], state, action)

    def mean_step(state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        assert system.mean_dynamics is not None
        return repeat([system.mean_dynamics] * action_repeat, state, action)

    return Env(
        spec,
        reset,
        step,
        mean_step if system.mean_dynamics else None,
        terminated=system.terminated,
    )
