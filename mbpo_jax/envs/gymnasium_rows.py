"""Gymnasium's MuJoCo tasks as functions of a row of numbers, in NumPy.

What steps is Gymnasium's own environment object. Before a step everything that it will read is put
in place from a row, and after it the new row is taken out. So a step depends on row and action
alone, whatever the object did before, and equals Gymnasium's bit for bit.
"""

import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import mujoco as compiled_mujoco
import numpy as np
from gymnasium.envs.registration import load_env_creator, spec

from mbpo_jax.errors import ConfigError, suggestion

mujoco: Any = compiled_mujoco  # without types to check

READ_BEFORE_A_STEP = {
    "Ant-v4": "xpos",
    "Ant-v5": "xpos",
    "Humanoid-v4": "xipos",
    "Humanoid-v5": "xipos",
    "Reacher-v4": "xpos",
}
"""Poses from before a step that enter its reward. They are one physics step older than the joint
positions, so they cannot be computed from them."""

BLOWN_UP = [
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
    int(mujoco.mjtWarning.mjWARN_BADCTRL),
]
"""Warnings after which MuJoCo goes on from its initial state, or without the action: with numbers
that look healthy."""


class Outcome(NamedTuple):
    """What a step led to; all NaN where row or action was not finite, or MuJoCo blew up.

    Attributes:
      row: `[W]` float64, from which the next step goes on.
      observation: `[O]` float64.
      reward: summed over the repeats.
      terminated: the task ended the episode; time limits are none of its business.
    """

    row: np.ndarray
    observation: np.ndarray
    reward: float
    terminated: bool


class Simulator:
    """One task, stepped from rows. Two threads must not use it at once.

    Attributes:
      env: Gymnasium's environment, without any wrapper.
      row_size: `W`.
      observation_size: `O`.
      action_scale: `[A]` float32, what an action of 1 is to the task.
    """

    def __init__(self, task: str, options: Mapping[str, Any], *, truncated: bool = False) -> None:
        """Build a task.

        Args:
          task: its id, such as `Hopper-v5`.
          options: arguments of its constructor.
          truncated: of what is observed, joint positions and velocities alone are kept, which come
            first.
        """
        hear_warnings()
        self.env = _creator(task)(**options)
        self._data, self._poses = self.env.data, READ_BEFORE_A_STEP.get(task)
        nq, nv = self.env.model.nq, self.env.model.nv
        self._velocities, self._warm_start = slice(nq, nq + nv), slice(nq + nv, nq + 2 * nv)
        self.observation_size = self.env.observation_space.shape[0]
        if truncated:
            # Where there is no such option, the position along the ground is not observed.
            unseen = getattr(self.env, "_exclude_current_positions_from_observation", True)
            self.observation_size = nq + nv - 2 * unseen
        self.row_size = self.row().size
        self.action_scale = self.env.action_space.high
        # True of all of Gymnasium's, but a model file of one's own can be given.
        model, low = self.env.model, self.env.action_space.low
        if model.na or model.nmocap or not np.array_equal(low, -self.action_scale):
            raise ConfigError(
                f"{task}: its model has actuators with states of their own, mocap bodies, or "
                "bounds that are not symmetric; none of it is supported"
            )

    def row(self) -> np.ndarray:
        """Return all that the next step depends on, `[W]` float64."""
        data = self._data
        parts = [data.qpos, data.qvel, data.qacc_warmstart]
        if self._poses:
            parts.append(getattr(data, self._poses).ravel())
        return np.concatenate(parts)

    def reset(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Reset as Gymnasium does with this seed, and return row `[W]` and observation `[O]`."""
        observation, _ = self.env.reset(seed=seed)
        return self.row(), observation[: self.observation_size]

    def step(self, row: np.ndarray, action: np.ndarray, repeat: int = 1) -> Outcome:
        """Step from a row.

        Args:
          row: `[W]` float64.
          action: `[A]` float32 in [-1, 1], stretched to the task's bounds.
          repeat: steps with this action; they end at a termination.
        """
        if not (np.isfinite(row).all() and np.isfinite(action).all()):
            return self._nothing()
        self._put(row)
        self._data.warning.number[:] = 0
        control, total = action * self.action_scale, 0.0
        observation, terminated = np.empty(0), False
        for _ in range(repeat):
            observation, reward, terminated, _, _ = self.env.step(control)
            total += reward
            if self._data.warning.number[BLOWN_UP].any():
                return self._nothing()
            if terminated:
                break
        return Outcome(self.row(), observation[: self.observation_size], total, bool(terminated))

    def _put(self, row: np.ndarray) -> None:
        data = self._data
        data.qpos[:] = row[: self._velocities.start]
        data.qvel[:] = row[self._velocities]
        data.qacc_warmstart[:] = row[self._warm_start]
        if self._poses:
            getattr(data, self._poses).flat[:] = row[self._warm_start.stop :]

    def _nothing(self) -> Outcome:
        nan = np.full(self.row_size + self.observation_size, np.nan)
        return Outcome(nan[: self.row_size], nan[self.row_size :], np.nan, False)


def _creator(task: str) -> Callable[..., Any]:
    """Return the constructor of a task, without the wrappers of `gymnasium.make`."""
    registered: Any = spec(task)
    return functools.partial(load_env_creator(registered.entry_point), **registered.kwargs)


def read_options(task: str, options: Sequence[str]) -> dict[str, Any]:
    """Read options of a task, of which a later one replaces an earlier one of its name.

    Raises:
      ConfigError: there is no such option, or its value is of another kind than its default.
    """
    parameters = inspect.signature(_creator(task)).parameters
    own = {
        name: parameter.default
        for name, parameter in parameters.items()
        if isinstance(parameter.default, bool | int | float | str | tuple)
    }
    values, problems = {}, []
    for option in options:
        name, _, text = option.partition("=")
        if name not in own:
            found = suggestion(name, own) if own else "it has none"
            problems.append(f"env.options: {task} has no option {name!r}; {found}")
            continue
        try:
            values[name] = _like(own[name], text)
        except ValueError:
            example = json.dumps(own[name])
            problems.append(f"env.options: {option!r}: write {name}=VALUE as in {name}={example}")
    if problems:
        raise ConfigError(*problems)
    return values


def _like(default: Any, text: str) -> Any:
    """Read a value of the kind of a default.

    Raises:
      ValueError: it is of another kind.
    """
    if isinstance(default, str):
        return text
    value = json.loads(text)
    if isinstance(default, tuple) and isinstance(value, list) and len(value) == len(default):
        return tuple(_like(one, json.dumps(part)) for one, part in zip(default, value, strict=True))
    kind = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, kind) or isinstance(value, bool) != isinstance(default, bool):
        raise ValueError(text)
    return value


def hear_warnings() -> None:
    """Take MuJoCo's warnings, which it would write to standard error and into a file.

    Those of a row that blew up are counted by `Simulator.step`. A handler that is there stays.
    """
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_heard)


def _heard(message: str) -> None:
    known = ("Nan, Inf or huge value", "compiler attribute 'settotalmass' is deprecated")
    if not message.startswith(known):
        print(f"MuJoCo: {message}", file=sys.stderr)
