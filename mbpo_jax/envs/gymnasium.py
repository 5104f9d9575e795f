"""Gymnasium's MuJoCo tasks behind the project's `Env`, bit for bit, inside the compiled step.

C MuJoCo is called back from the program with the full state of the physics, a row of float64
numbers, which is all that the program carries. So a step is a pure function: it can be mapped over
rows, started from any row that was kept, and goes on after a checkpoint as if nothing had been.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.envs import observed, termination
from mbpo_jax.errors import ConfigError
from mbpo_jax.types import Env, EnvSpec, EnvState, Picture, TerminationFn, Transition

BACKENDS = ("mujoco",)
PREFIX = "gym/"

MOST_BYTES = 80_000
"""Of a callback's argument. With larger ones, programs for several devices hang on JAX 0.10."""


class TaskInfo(NamedTuple):
    """What is known of a task without loading it.

    Attributes:
      observation_size: of what is observed, with the task's own options left as they are here.
      action_size: size of an action.
      truncated: the observation's first entries are kept, and no option of the task says so.
      options: what differs from the defaults of its constructor.
      observed: names of what is observed; by its joints if there are none here.
    """

    observation_size: int
    action_size: int
    truncated: bool = False
    options: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()


# Contact forces, inertias and the like are left out, as in the MBPO paper's truncated observations.
_JOINTS_ONLY = tuple(
    f"include_{part}_in_observation=false"
    for part in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
)

_CONSTRAINTS = tuple(f"{joint} constraint force" for joint in ("slider", "hinge", "hinge2"))
_REACHER = (*observed.ARM_AND_TARGET, "joint0 speed", "joint1 speed")

TASKS = {
    "Ant-v4": TaskInfo(27, 8),
    "Ant-v5": TaskInfo(27, 8, options=_JOINTS_ONLY[-1:]),
    "HalfCheetah-v4": TaskInfo(17, 6),
    "HalfCheetah-v5": TaskInfo(17, 6),
    "Hopper-v4": TaskInfo(11, 3),
    "Hopper-v5": TaskInfo(11, 3),
    "Humanoid-v4": TaskInfo(45, 17, truncated=True),
    "Humanoid-v5": TaskInfo(45, 17, options=_JOINTS_ONLY),
    "HumanoidStandup-v4": TaskInfo(45, 17, truncated=True),
    "HumanoidStandup-v5": TaskInfo(45, 17, options=_JOINTS_ONLY),
    "InvertedDoublePendulum-v4": TaskInfo(11, 1, observed=(*observed.TWO_POLES, *_CONSTRAINTS)),
    "InvertedDoublePendulum-v5": TaskInfo(9, 1, observed=(*observed.TWO_POLES, *_CONSTRAINTS[:1])),
    "InvertedPendulum-v4": TaskInfo(4, 1),
    "InvertedPendulum-v5": TaskInfo(4, 1),
    # Pusher-v4 needs MuJoCo 2.
    "Pusher-v5": TaskInfo(23, 7),
    "Reacher-v4": TaskInfo(11, 2, observed=(*_REACHER, *observed.FINGERTIP)),
    "Reacher-v5": TaskInfo(10, 2, observed=(*_REACHER, *observed.FINGERTIP[:2])),
    "Swimmer-v4": TaskInfo(8, 2),
    "Swimmer-v5": TaskInfo(8, 2),
    "Walker2d-v4": TaskInfo(17, 6),
    "Walker2d-v5": TaskInfo(17, 6),
}


def make_gymnasium_env(
    task: str, options: Sequence[str], episode_length: int, action_repeat: int
) -> Env:
    """Adapt a task of Gymnasium.

    `EnvState.simulator` is the row of the physics' state, `[2 W]` uint32: float64 numbers as words,
    since JAX has none by default. A reset is Gymnasium's with the key's words as its seed. A row
    that blew up in MuJoCo gives NaN.

    Args:
      task: a key of `TASKS`.
      options: of the task's constructor, each `name=value`, the value in JSON.
      episode_length: time limit in steps of the task; it ends the episode but leaves the
        transition's discount at 1.
      action_repeat: steps of the task per action. A repeat ends at a termination; rewards are
        summed.

    Raises:
      ConfigError: an option is wrong, or JAX was told to use no CPU.
    """
    _check_platforms()
    simulators = Simulators(task, options)
    with simulators.one() as simulator:
        row_words, observation_size = 2 * simulator.row_size, simulator.observation_size
        num_positions, model = simulator.env.model.nq, simulator.env.model
        spec = EnvSpec(
            name=PREFIX + task,
            observation_size=observation_size,
            action_size=simulator.action_scale.size,
            episode_length=episode_length,
            action_repeat=action_repeat,
            dt=round(simulator.env.dt * action_repeat, 6),
            action_scale=tuple(simulator.action_scale.tolist()),
            observed=names_of(task, simulator.env, observation_size),
        )
        terminated = known_rule(task, simulator.env)

    def host_reset(words: np.ndarray) -> np.ndarray:
        with simulators.one() as simulator:
            outcomes = [simulator.reset(seed_of(key)) for key in words]
        return _packed(*(np.stack(part) for part in zip(*outcomes, strict=True)))

    def host_step(words: np.ndarray) -> np.ndarray:
        rows, actions = words[:, :row_words], words[:, row_words:]
        pairs = zip(_as(np.float64, rows), _as(np.float32, actions), strict=True)
        with simulators.one() as simulator:
            outcomes = [simulator.step(row, action, action_repeat) for row, action in pairs]
        rows, observations, rewards, ends = (np.stack(part) for part in zip(*outcomes, strict=True))
        return _packed(rows, np.column_stack([observations, rewards, ends]))

    call_reset = on_host(host_reset, row_words + observation_size)
    call_step = on_host(host_step, row_words + observation_size + 2)

    def unpacked(words: jax.Array) -> tuple[jax.Array, jax.Array]:
        return words[:row_words], jax.lax.bitcast_convert_type(words[row_words:], jnp.float32)

    def reset(key: jax.Array) -> EnvState:
        row, observation = unpacked(call_reset(jax.random.key_data(key).ravel()))
        return EnvState(row, observation, jnp.int32(0), jnp.bool_(False))

    def step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        del key  # MuJoCo is deterministic.
        bits = jax.lax.bitcast_convert_type(action.astype(jnp.float32), jnp.uint32)
        row, numbers = unpacked(call_step(jnp.concatenate([state.simulator, bits])))
        observation, (reward, ended) = numbers[:observation_size], numbers[observation_size:]
        steps = state.steps + action_repeat
        transition = Transition(
            observation=state.observation,
            action=action,
            reward=reward,
            discount=1.0 - ended,
            next_observation=observation,
        )
        done = (ended > 0) | (steps >= episode_length)
        return EnvState(row, observation, steps, done), transition

    def positions(rows: np.ndarray) -> np.ndarray:
        return _as(np.float64, rows)[:, :num_positions]

    picture = Picture(lambda state: state.simulator, lambda: model, positions)
    return Env(spec, reset, step, terminated=terminated, differentiable=False, picture=picture)


class Simulators:
    """As many simulators of a task as are used at once; a callback may run on any thread.

    One in which something was raised is not used again.
    """

    def __init__(self, task: str, options: Sequence[str]) -> None:
        from mbpo_jax.envs.gymnasium_rows import Simulator, read_options

        info = TASKS[task]
        given = read_options(task, (*info.options, *options))
        self._make = functools.partial(Simulator, task, given, truncated=info.truncated)
        self._idle = collections.deque([self._tried(task, options)])

    def _tried(self, task: str, options: Sequence[str]) -> Any:
        """Make a simulator and step it once, so that values it cannot do with are known at once."""
        refused = f"env.options: {task} cannot be made with {[*options]}"
        try:
            simulator = self._make()
            row, _ = simulator.reset(0)
            outcome = simulator.step(row, np.zeros_like(simulator.action_scale))
        except ConfigError:
            raise
        except Exception as error:  # whatever the task's own code makes of a value
            raise ConfigError(f"{refused}: {type(error).__name__}: {error}") from error
        if simulator.env.dt <= 0.0:
            raise ConfigError(f"{refused}: a step would take {simulator.env.dt:g} s")
        if not np.isfinite(outcome.reward):
            raise ConfigError(f"{refused}: its first step is not finite")
        return simulator

    @contextmanager
    def one(self) -> Iterator[Any]:
        """Hold a simulator that nobody else holds."""
        try:
            simulator = self._idle.pop()
        except IndexError:
            simulator = self._make()
        yield simulator
        self._idle.append(simulator)


def on_host(
    compute: Callable[[np.ndarray], np.ndarray], num_outputs: int
) -> Callable[[jax.Array], jax.Array]:
    """Let JAX call a function of the host, and map it over rows by calls with many rows.

    Args:
      compute: `words [B, I] -> words [B, K]`, each row by itself.
      num_outputs: K.

    Returns:
      `words [I] -> words [K]`, all uint32.
    """

    def called(words: np.ndarray) -> np.ndarray:
        return compute(np.asarray(words))

    @jax.custom_batching.custom_vmap
    def one(words: jax.Array) -> jax.Array:
        return many(words[None])[0]

    @jax.custom_batching.custom_vmap
    def many(words: jax.Array) -> jax.Array:
        num_rows, num_inputs = words.shape
        most = max(MOST_BYTES // (4 * max(num_inputs, num_outputs)), 1)
        if num_rows > most:
            return jax.lax.map(one, words, batch_size=most)
        return jax.pure_callback(
            called, jax.ShapeDtypeStruct((num_rows, num_outputs), jnp.uint32), words
        )

    @one.def_vmap
    def _(axis_size: int, in_batched: list[bool], words: jax.Array) -> tuple[jax.Array, bool]:
        del axis_size, in_batched
        return many(words), True

    @many.def_vmap
    def _(axis_size: int, in_batched: list[bool], words: jax.Array) -> tuple[jax.Array, bool]:
        del in_batched
        rows = many(words.reshape(-1, words.shape[-1]))
        return rows.reshape(axis_size, -1, num_outputs), True

    return one


def seed_of(words: np.ndarray) -> int:
    """Return the seed that a key's words, uint32, make: the digits of a number, largest first."""
    return int.from_bytes(words.astype(">u4").tobytes(), "big")


def _as(dtype: type, words: np.ndarray) -> np.ndarray:
    """Read words `[B, ...]` as numbers."""
    return np.ascontiguousarray(words).view(dtype)


def _packed(rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Write rows `[B, W]` as they are and numbers `[B, N]` in single precision, as words."""
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is noticed
        single = numbers.astype(np.float32)
    return np.concatenate([_as(np.uint32, rows), _as(np.uint32, single)], axis=1)


def _check_platforms() -> None:
    platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if platforms and "cpu" not in platforms.split(","):
        raise ConfigError(
            f"JAX_PLATFORMS={platforms} leaves out the CPU, on which MuJoCo steps; "
            f"use JAX_PLATFORMS={platforms},cpu"
        )


def names_of(task: str, env: Any, observation_size: int) -> tuple[str, ...]:
    """Return the names of what a task observes, as many as are known."""
    if task == "Pusher-v5":
        return observed.of_pusher(env.model)
    if names := TASKS[task].observed:
        return names
    # Of version 5, which says what it observes, whatever its options are.
    layout = getattr(env, "observation_structure", None)
    unseen = None if layout is None else layout.get("skipped_qpos", 0)
    return observed.of_joints(env.model, observation_size, unseen)


def known_rule(task: str, env: Any) -> TerminationFn:
    """Return the rule by which a task ends an episode, told from the next observation.

    It is exact but for rounding to single precision and two cases. Hopper also ends at a speed of
    100, but speeds are observed up to 10. And the tip of the double pendulum is where the last
    stage of an integration step was, micrometres away from where the joint angles put it.

    Args:
      task: a key of `TASKS`.
      env: Gymnasium's environment, whose limits options may have changed.
    """
    family, _, _ = task.partition("-")
    if family == "InvertedPendulum":
        return termination.inverted_pendulum
    if family == "InvertedDoublePendulum":
        return termination.inverted_double_pendulum
    if family not in ("Ant", "Hopper", "Humanoid", "Walker2d") or not env._terminate_when_unhealthy:
        return termination.never
    # Positions that the observation may begin with: along the ground.
    along = 1 if family in ("Hopper", "Walker2d") else 2
    first = 0 if env._exclude_current_positions_from_observation else along
    low, high = env._healthy_z_range

    def unhealthy(observation: jax.Array) -> jax.Array:
        height, others = observation[..., first], observation[..., first + 1 :]
        if family == "Ant":
            return (height < low) | (height > high)
        healthy = (height > low) & (height < high)
        if family in ("Hopper", "Walker2d"):
            lowest, highest = env._healthy_angle_range
            healthy &= (others[..., 0] > lowest) & (others[..., 0] < highest)
        if family == "Hopper":
            lowest, highest = env._healthy_state_range
            healthy &= jnp.all((others > lowest) & (others < highest), axis=-1)
        return ~healthy

    return unhealthy
