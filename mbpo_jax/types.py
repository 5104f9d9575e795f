"""The types that pass between packages: data, and components as named tuples of functions.

Letters in shapes: `E` ensemble members, `B` batch, `T` horizon, `O` observation, `A` action.
Axis order is `[run, E, B, T, feature]`; functions are written without the run axis.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PyTree = Any
Metrics = dict[str, jax.Array]
"""Values to report, named `component/name`; never carried from step to step."""


class Transition(NamedTuple):
    """One environment step, or a batch of them under any leading axes.

    Attributes:
      observation: `[..., O]` float32.
      action: `[..., A]` float32 in [-1, 1].
      reward: `[...]` float32, summed over an action repeat.
      discount: `[...]` float32, 1 - terminated. The discount factor is not in it, and a time
        limit leaves it 1.
      next_observation: `[..., O]` float32, the true successor: never an observation after a reset.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    next_observation: jax.Array


class EnvSpec(NamedTuple):
    """Sizes and limits of an environment, known before anything is traced.

    Attributes:
      name: as the user writes it.
      observation_size: `O`.
      action_size: `A`; every action component lies in [-1, 1].
      episode_length: time limit in simulator steps (an action counts `action_repeat` of them).
      action_repeat: simulator steps per action.
      dt: seconds of simulated time per action.
    """

    name: str
    observation_size: int
    action_size: int
    episode_length: int
    action_repeat: int
    dt: float


class EnvState(NamedTuple):
    """State of one environment.

    Attributes:
      simulator: whatever the simulator carries.
      observation: `[O]` float32.
      steps: int32, simulator steps since the reset.
      done: bool, the episode ended with the last step, by termination or by the time limit.
    """

    simulator: PyTree
    observation: jax.Array
    steps: jax.Array
    done: jax.Array


class Env(NamedTuple):
    """A Markov decision process that never resets itself (see `envs.base.step_or_reset`).

    Attributes:
      spec: sizes and limits.
      reset: `key -> EnvState`, a fresh random initial state.
      step: `(key, EnvState, action [A]) -> (EnvState, Transition)`.
    """

    spec: EnvSpec
    reset: Callable[[jax.Array], EnvState]
    step: Callable[[jax.Array, EnvState, jax.Array], tuple[EnvState, Transition]]


TerminationFn = Callable[[jax.Array], jax.Array]
"""`next_observation [..., O] -> terminated [...]` bool."""

Policy = Callable[[jax.Array, jax.Array], jax.Array]
"""`(key, observation [..., O]) -> action [..., A]` in [-1, 1]."""


class Experience(NamedTuple):
    """Which transitions feed an update: the first of the three slots of an algorithm.

    Attributes:
      init: `key -> state` of whatever the experience needs besides the replay buffer.
      refresh: `(key, state, replay, policy, env_steps) -> (state, Metrics)`, at the start of each
        chunk: fits models and makes their data. `env_steps` counts the transitions made so far and
        is the same for all runs.
      sample: `(key, state, replay, shape) -> Transition [*shape, ...]`.
      diagnose: `(state, replay) -> Metrics`, at the end of each chunk.
    """

    init: Callable[[jax.Array], PyTree]
    refresh: Callable[..., tuple[PyTree, Metrics]]
    sample: Callable[..., Transition]
    diagnose: Callable[..., Metrics]


class Agent(NamedTuple):
    """An actor-critic as pure functions.

    Attributes:
      init: `key -> state`.
      sample_action: `(key, state, observation [..., O]) -> action [..., A]`, stochastic.
      mode_action: `(state, observation [..., O]) -> action [..., A]`, deterministic.
      update: `(key, state, Transition [B]) -> (state, Metrics)`, one gradient update of all parts.
    """

    init: Callable[[jax.Array], PyTree]
    sample_action: Callable[[jax.Array, PyTree, jax.Array], jax.Array]
    mode_action: Callable[[PyTree, jax.Array], jax.Array]
    update: Callable[[jax.Array, PyTree, Transition], tuple[PyTree, Metrics]]


class Algorithm(NamedTuple):
    """An assembly of parts that the training loop runs."""

    experience: Experience
    agent: Agent
