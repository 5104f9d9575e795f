"""The types that pass between packages: data, and components as named tuples of functions.

Letters in shapes: `E` ensemble members, `B` batch, `T` horizon, `O` observation, `A` action.
Axis order is `[run, E, B, T, feature]`, but `[T, B, feature]` where a scan over time made it or a
target is computed along it; functions are written without the run axis.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PyTree = Any
RUNS_AXIS = "runs"
"""Name of the axis of runs that are computed side by side; a run alone has none."""
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
      log_prob: `[...]` float32, log-density of the action under the policy that took it; () where
        no algorithm asks for it.
      simulator: state of the simulator at `observation`, from which the true system can go on; ()
        where no algorithm asks for it.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    next_observation: jax.Array
    log_prob: jax.Array | tuple[()] = ()
    simulator: PyTree = ()


class EnvSpec(NamedTuple):
    """Sizes and limits of an environment, known before anything is traced.

    Attributes:
      name: as the user writes it.
      observation_size: `O`.
      action_size: `A`; every action component lies in [-1, 1].
      episode_length: time limit in simulator steps (an action counts `action_repeat` of them).
      action_repeat: simulator steps per action.
      dt: seconds of simulated time per action.
      action_scale: `[A]`, what actions of 1 mean to the simulator; None where it is 1.
      tabular: observations are one-hot, a component for each state, and the largest component of
        an action names one of `A` moves.
      observed: names of the observation's components, from the first one on, for people; those
        that have none are numbered.
    """

    name: str
    observation_size: int
    action_size: int
    episode_length: int
    action_repeat: int
    dt: float
    tabular: bool = False
    action_scale: tuple[float, ...] | None = None
    observed: tuple[str, ...] = ()

    @property
    def components(self) -> list[str]:
        """Return a name for each component of the observation."""
        if self.observation_size == 1 and not self.observed:
            return ["observation"]
        rest = range(len(self.observed), self.observation_size)
        return [*self.observed, *(f"observation {i}" for i in rest)]


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


TerminationFn = Callable[[jax.Array], jax.Array]
"""`next_observation [..., O] -> terminated [...]` bool."""


class Picture(NamedTuple):
    """How episodes of a system of bodies are drawn.

    Attributes:
      frame: `EnvState -> PyTree`, what is kept of a state while an episode is played.
      model: `() -> mujoco.MjModel`, the bodies.
      positions: `frames [T, ...] -> [T, Q]`, on the host, generalized positions of that model; or
        `[T, Q + 3 M]`, behind them where its M mocap bodies are.
      viewer: `(frames [T, ...], dt) -> str`, what Brax's viewer reads; None if it cannot show it.
    """

    frame: Callable[["EnvState"], PyTree]
    model: Callable[[], Any]
    positions: Callable[[PyTree], Any]
    viewer: Callable[[PyTree, float], str] | None = None


class Env(NamedTuple):
    """A Markov decision process that never resets itself (see `envs.base.step_or_reset`).

    Attributes:
      spec: sizes and limits.
      reset: `key -> EnvState`, a fresh random initial state.
      step: `(key, EnvState, action [A]) -> (EnvState, Transition)`.
      mean_step: the same without a key, to the mean of the next state; None if a step has no noise.
      terminated: the rule by which an episode terminates, for model rollouts;
        `envs.termination.never` if none does, None if it cannot be told from an observation.
      differentiable: whether JAX can differentiate a step, backwards too.
      picture: None if an episode is shown as curves.
    """

    spec: EnvSpec
    reset: Callable[[jax.Array], EnvState]
    step: Callable[[jax.Array, EnvState, jax.Array], tuple[EnvState, Transition]]
    mean_step: Callable[[EnvState, jax.Array], tuple[EnvState, Transition]] | None = None
    terminated: TerminationFn | None = None
    differentiable: bool = True
    picture: Picture | None = None


Policy = Callable[[jax.Array, jax.Array], jax.Array]
"""`(key, observation [..., O]) -> action [..., A]` in [-1, 1]."""


class Point(NamedTuple):
    """Where model rollouts are.

    Attributes:
      observation: `[B, O]` float32.
      simulator: state of the simulator `[B, ...]` for the true system; () for a learned model.
    """

    observation: jax.Array
    simulator: PyTree = ()


class Prediction(NamedTuple):
    """Sampled outcome of one model step.

    Attributes:
      reward: `[B]`.
      discount: `[B]`, 0 where termination is predicted or the prediction is not finite, else 1.
      finite: `[B]` bool.
    """

    reward: jax.Array
    discount: jax.Array
    finite: jax.Array


class DynamicsModel(NamedTuple):
    """A system that can be rolled out from any state: a learned one, or the true one.

    Attributes:
      num_members: systems between which it is uncertain; 1 for the true one.
      needs_simulator: rollouts start from simulator states, which the replay buffer has to keep.
      init: `key -> state`.
      fit: `(key, state, replay, env_steps) -> (state, Metrics)`; `env_steps` counts the transitions
        made so far, those left out of replay too, and is the same for all runs.
      ready: `state -> view`, what predictions need of a state, made once for many of them.
      start: `(observation [B, O], simulator) -> Point`.
      follow: `(key, view, Transition [B]) -> (Point, Transition [B])`, where rollouts go on after
        real transitions. The true system makes the transitions again, because simulator states are
        kept of their beginnings, not of their ends.
      step: `(key, view, Point, action [B, A], propagation) -> (Point, Prediction)`, differentiable
        in point and action. With propagation "trajectory" the i-th of `num_members` equal shares of
        the rows meets the i-th member, with "members" its mean.
      diagnose: `(state, replay) -> Metrics`, on a buffer of transitions made after the fit.
      outcomes: `(view, Point [B], action [B, A]) -> (mean, std)`, each `[num_members, B, 1 + O]`,
        what each member predicts of reward and next observation; None if there are no members.
      fused: `(key, view, Point [B], action [B, A]) -> (Point, Prediction, variance [B, 1 + O])`, a
        step that all members make together (`models.fusion`), and the variance that a sample of a
        member leaves; None if there are no members.
    """

    num_members: int
    needs_simulator: bool
    init: Callable[[jax.Array], PyTree]
    fit: Callable[..., tuple[PyTree, Metrics]]
    ready: Callable[[PyTree], PyTree]
    start: Callable[[jax.Array, PyTree], Point]
    follow: Callable[[jax.Array, PyTree, Transition], tuple[Point, Transition]]
    step: Callable[[jax.Array, PyTree, Point, jax.Array, str], tuple[Point, Prediction]]
    diagnose: Callable[..., Metrics]
    outcomes: Callable[..., tuple[jax.Array, jax.Array]] | None = None
    fused: Callable[..., tuple[Point, Prediction, jax.Array]] | None = None


class Experience(NamedTuple):
    """Which transitions feed an update.

    Attributes:
      init: `() -> state` of whatever the experience needs besides the replay buffer.
      refresh: `(key, state, view, replay, policy, env_steps) -> (state, Metrics)`, after a fit:
        makes model data. `view` is the model's.
      sample: `(key, state, replay, shape) -> batch [*shape, ...]`: transitions, or what else the
        agent's update reads.
      refreshes: how often model data are made between two fits, at even distances.
    """

    init: Callable[[], PyTree]
    refresh: Callable[..., tuple[PyTree, Metrics]]
    sample: Callable[..., PyTree]
    refreshes: int = 1


class Agent(NamedTuple):
    """What acts and learns, as pure functions.

    Attributes:
      init: `key -> state`.
      begin: `() -> memory`, what acting carries from step to step at the start of an episode: ()
        for a policy, the plan for a planner.
      act: `(key, state, view, memory, EnvState, explore) -> (action [A], memory)` in one
        environment; `explore` is False, static, when evaluating.
      update: `(key, state, view, batch) -> (state, Metrics)`, one gradient update of all parts.
      updates_per_step: updates per environment step (G); 0 for an agent that only plans.
      batch_size: rows of a batch (B).
      policy: `state -> Policy`, the stochastic policy, for rollouts; None for a planner.
      deterministic: `(state, observation [..., O]) -> action [..., A]`, what it does without
        exploring where the observation is all that it needs; None for a planner.
      log_prob: `(state, observation [..., O], action [..., A]) -> [...]`; None if unknown.
      observe: `(state, replay) -> state`, what it takes from all real transitions after a fit.
      update_critics: `(key, state, view, batch) -> state`, an update of its critics alone; None if
        it has none.
      critic_updates: such updates after a fit.
      catches_up: it makes as many updates before it first acts as belong to the steps until then.
    """

    init: Callable[[jax.Array], PyTree]
    begin: Callable[[], PyTree]
    act: Callable[..., tuple[jax.Array, PyTree]]
    update: Callable[..., tuple[PyTree, Metrics]]
    updates_per_step: int
    batch_size: int
    policy: Callable[[PyTree], Policy] | None = None
    deterministic: Callable[[PyTree, jax.Array], jax.Array] | None = None
    log_prob: Callable[..., jax.Array] | None = None
    observe: Callable[[PyTree, PyTree], PyTree] = lambda state, replay: state
    update_critics: Callable[[jax.Array, PyTree, PyTree, PyTree], PyTree] | None = None
    critic_updates: int = 0
    catches_up: bool = False


class Algorithm(NamedTuple):
    """An assembly of parts that the training loop runs.

    Attributes:
      agent: what acts and learns.
      experience: what feeds its updates.
      model: what it predicts with; None for a model-free algorithm.
      keeps_log_prob: store the behaviour's log-densities with the transitions.
    """

    agent: Agent
    experience: Experience
    model: DynamicsModel | None = None
    keeps_log_prob: bool = False
