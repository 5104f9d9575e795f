"""Presets of DeepMind Control's tasks.

Sources:
  [DMC] Tassa et al. 2018, arXiv:1801.00690: the time limit.
  [DHMBPO] Kubo, Parmas and Ishii 2025, arXiv:2512.15439, and the code they published.
  [FTFL] Barkley and Fridovich-Keil 2025, arXiv:2510.01457, its abstract.
  [ours] chosen here, not tuned.
MBPO was not published on these tasks. What is counted here are actions, each of which is two steps
of a task; [DHMBPO] counts those.
"""

from typing import Any, NamedTuple

from mbpo_jax.presets.base import Preset


class _Task(NamedTuple):
    """How long a task is trained on: actions, and whose number it is."""

    actions: int
    source: str


_SHORT = _Task(125_000, "DHMBPO's length")  # 250,000 steps of the task
_LONG = _Task(250_000, "DHMBPO's length")  # 500,000
_OURS = _Task(250_000, "our length")  # [ours]: not among the tasks of [DHMBPO]

_TASKS = {
    "AcrobotSwingup": _LONG,
    "AcrobotSwingupSparse": _LONG,
    "BallInCup": _SHORT,
    "CartpoleBalance": _SHORT,
    "CartpoleBalanceSparse": _OURS,
    "CartpoleSwingup": _SHORT,
    "CartpoleSwingupSparse": _LONG,
    "CheetahRun": _LONG,
    "FingerSpin": _LONG,
    "FingerTurnEasy": _LONG,
    "FingerTurnHard": _LONG,
    "FishSwim": _OURS,
    "HopperHop": _LONG,
    "HopperStand": _LONG,
    "HumanoidRun": _OURS,
    "HumanoidStand": _LONG,
    "HumanoidWalk": _OURS,
    "PendulumSwingup": _OURS,
    "PointMass": _OURS,
    "ReacherEasy": _OURS,
    "ReacherHard": _LONG,
    "SwimmerSwimmer6": _OURS,
    "WalkerRun": _LONG,
    "WalkerStand": _SHORT,
    "WalkerWalk": _SHORT,
}


def _preset(name: str, task: _Task) -> Preset:
    changes: dict[str, Any] = {
        "env": {
            "name": name,
            "backend": "mjx",
            "episode_length": 1000,  # [DMC]
            "action_repeat": 2,  # [DHMBPO]
        },
        "total_env_steps": task.actions,
        "random_steps": 2500,  # [DHMBPO]: five episodes
        "epoch_length": 1000,  # [ours], as for Gymnasium's tasks with legs
        "eval_every": 5000,  # [DHMBPO]
        "checkpoint_every": 5000,  # [ours]
        # Rewards are at most 2, and next to them an entropy of 1 nat is much. The target entropy is
        # minus the number of action components.
        "sac": {"initial_alpha": 0.1, "target_entropy": None},  # [DHMBPO]
        "ensemble": {"normalize_targets": True},  # [DHMBPO], [FTFL]
    }
    return Preset(f"{task.source}, {task.actions:,} steps of two each", changes)


DMC_PRESETS = {name: _preset(name, task) for key, task in _TASKS.items() for name in [f"dmc/{key}"]}
