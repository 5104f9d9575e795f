"""Presets of Gymnasium's MuJoCo tasks: those of Brax, whose numbers were published for these.

`presets.brax` gives the source of each number. They were published for version 2 of Gym's tasks;
docs/environments.md says what has changed since.
"""

from typing import Any

from mbpo_jax.presets.base import Preset
from mbpo_jax.presets.brax import BRAX_PRESETS

_TASKS = {
    "Ant": "ant",
    "HalfCheetah": "halfcheetah",
    "Hopper": "hopper",
    "Humanoid": "humanoid",
    "HumanoidStandup": "humanoidstandup",
    "InvertedDoublePendulum": "inverted_double_pendulum",
    "InvertedPendulum": "inverted_pendulum",
    "Pusher": "pusher",
    "Reacher": "reacher",
    "Swimmer": "swimmer",
    "Walker2d": "walker2d",
}


def _adapted(preset: Preset, name: str) -> Preset:
    env: dict[str, Any] = {**preset.changes["env"], "name": name, "backend": "mujoco"}
    return Preset(preset.summary, {**preset.changes, "env": env})


GYMNASIUM_PRESETS = {
    name: _adapted(BRAX_PRESETS[brax], name)
    for task, brax in _TASKS.items()
    # Pusher-v4 needs MuJoCo 2.
    for version in (("v5",) if task == "Pusher" else ("v4", "v5"))
    for name in [f"gym/{task}-{version}"]
}
