"""Presets of methods, whose published numbers are put over a task's own.

Sources:
  [DHMBPO] Kubo, Parmas and Ishii 2025, arXiv:2512.15439, and the code they published.
  [MACURA] Frauenknecht et al. 2024, arXiv:2405.19014, and the code they published.
  [Infoprop] Frauenknecht et al. 2025, arXiv:2501.16918, and the code they published.
  [FTFL] Barkley and Fridovich-Keil 2025, arXiv:2510.01457, its abstract.
  [ours] chosen here.
"""

from typing import Any, NamedTuple

from mbpo_jax.presets.base import Preset


class _Macura(NamedTuple):
    """Numbers of a task, all of [MACURA]; the temperature's target is an entropy in nats."""

    scale: float
    quantile: float
    updates: int
    retain_epochs: int
    width: int
    patience: int
    sac_width: int
    sac_rate: float
    batch_size: int
    target_interval: int
    target_entropy: float
    rollouts_per_step: int = 400


_MACURA = {
    "hopper": _Macura(30.0, 0.9, 30, 1, 200, 5, 1024, 3e-4, 256, 4, 0.0),
    "walker2d": _Macura(0.3, 0.95, 30, 3, 400, 10, 1024, 7e-5, 512, 4, -1.0),
    "halfcheetah": _Macura(2.0, 0.95, 10, 1, 200, 5, 1024, 3e-4, 256, 1, -4.0, 200),
    "ant": _Macura(5.0, 0.95, 20, 1, 200, 10, 1024, 1e-4, 512, 4, -1.0),
    "humanoid": _Macura(5.0, 0.95, 20, 5, 400, 10, 2048, 1e-4, 512, 4, -10.0),
}


def _macura(task: str, numbers: _Macura) -> Preset:
    changes: dict[str, Any] = {
        "algorithm": "mbpo",
        "steps_per_fit": 250,
        "epoch_length": 1000,
        "sac": {
            # [ours]: the published number is of updates where the model buffer is half full.
            "utd_ratio": numbers.updates,
            "hidden_sizes": (numbers.sac_width,) * 2,
            "learning_rate": numbers.sac_rate,
            "batch_size": numbers.batch_size,
            # [ours]: a part of it at each update, where theirs moves after so many.
            "tau": 0.005 / numbers.target_interval,
            "target_entropy": numbers.target_entropy,
        },
        "ensemble": {
            "num_members": 7,
            "num_elites": 7,  # all members roll out
            "hidden_sizes": (numbers.width,) * 4,
            "bounds": "fixed",
        },
        "fit": {
            "learning_rate": 3e-4,
            "weight_decays": (5e-5,) * 5,
            "patience": numbers.patience - 1,  # ours is what must be exceeded
        },
        "rollout": {
            "rollouts_per_step": numbers.rollouts_per_step,
            "min_length": 10,
            "max_length": 10,
            "retain_epochs": numbers.retain_epochs,
            "truncation": "threshold",
            "threshold_scale": numbers.scale,
            "threshold_quantile": numbers.quantile,
        },
    }
    return Preset(f"MACURA's numbers for {task}; with its wide networks of SAC", changes)


_DHMBPO_SAC = {
    "utd_ratio": 1,  # [DHMBPO]
    "hidden_sizes": (256, 256, 256),  # [DHMBPO]
    "activation": "swish",  # [DHMBPO]
    "num_critics": 5,  # [DHMBPO]
    "num_target_critics": 2,  # [DHMBPO]
    "policy_value": "mean",  # [DHMBPO]
    "critic_layer_norm": True,  # [DHMBPO]
    "scale_observations": True,  # [DHMBPO]
    "value_range": "rewards",  # [DHMBPO]
    "catches_up": True,  # [DHMBPO]
    "gamma": 0.995,  # [DHMBPO]
    "batch_size": 256,  # [DHMBPO]
    "learning_rate": 3e-4,  # [DHMBPO]
    "tau": 0.005,  # [DHMBPO]
    "initial_alpha": 0.1,  # [DHMBPO]
    "target_entropy": None,  # [DHMBPO]
}


ALGORITHM_PRESETS = {
    "ftfl": Preset(
        "any environment, FTFL's two switches of the model",
        {
            "ensemble": {
                "normalize_targets": True,  # [FTFL]: each target by itself, [ours]
                "target": "absolute",  # [FTFL]
            },
        },
    ),
    "macura": Preset(
        "any environment, MACURA's rollouts alone: ten steps, ended where members disagree",
        {
            "ensemble": {"num_elites": 7},  # [MACURA]
            "rollout": {
                "min_length": 10,  # [MACURA]
                "max_length": 10,  # [MACURA]
                "truncation": "threshold",  # [MACURA]
                "threshold_scale": 2.0,  # [MACURA], of its five tasks that in the middle
                "threshold_quantile": 0.95,  # [MACURA]
            },
        },
    ),
    "infoprop": Preset(
        "any environment, Infoprop's rollouts alone: up to 100 steps, made by all members together",
        {
            "ensemble": {"num_elites": 7},  # [Infoprop]
            "rollout": {
                # [ours]: theirs start anew until there are 100,000 rows.
                "rollouts_per_step": 20,
                "min_length": 100,  # [Infoprop]
                "max_length": 100,  # [Infoprop]
                "truncation": "information",  # [Infoprop]
                "step_quantile": 0.9999,  # [Infoprop]
                "total_quantile": 0.01,  # [Infoprop]
            },
        },
    ),
    **{f"macura_{task}": _macura(task, numbers) for task, numbers in _MACURA.items()},
    "sac_5_critics": Preset(
        "any environment, SAC with the agent of DHMBPO: five critics, one update a step",
        {"algorithm": "sac", "sac": _DHMBPO_SAC},
    ),
    "dhmbpo": Preset(
        "DHMBPO's numbers, for tasks with a fit every 250 steps",
        {
            "algorithm": "dhmbpo",
            "epoch_length": 200,  # for so many steps model states are kept, [DHMBPO]
            "sac": {**_DHMBPO_SAC, "critic_updates": 60},  # [DHMBPO]: 250 every 1,000 steps
            "ensemble": {
                "num_members": 8,  # [DHMBPO]
                "num_elites": 8,  # [DHMBPO]
                "hidden_sizes": (256, 256, 256),  # [DHMBPO]
                "layer_norm": True,  # [DHMBPO]
                "normalize_targets": True,  # [DHMBPO]
                "dropout": 0.005,  # [DHMBPO]: 0.0075, 0.005 and 0.0025, first layer to third
                "noise": "homoscedastic",  # [DHMBPO]
                "bounds": "fixed",  # [DHMBPO]
                "min_log_variance": -13.8,  # [DHMBPO]: a standard deviation of 0.001
            },
            "fit": {
                "weight_decays": (2.5e-5, 5e-5, 7.5e-5, 1e-4),  # [ours]
                "learning_rate": 1e-3,  # [DHMBPO]
                "batch_size": 256,  # [ours]; [DHMBPO] has up to 2048
                "stopping": "budget",  # [ours]
                "num_steps": 250,  # [ours]
                "cold_factor": 20,  # [ours]
            },
            "rollout": {
                "rollouts_per_step": 10,  # [ours]; [DHMBPO] has 256 every 20 steps
                "refreshes_per_fit": 10,  # so every 25 steps where a fit is made after 250
                "min_length": 20,  # [DHMBPO]
                "max_length": 20,
                "retain_epochs": 1,
                "real_ratio": 0.0,  # [DHMBPO]
            },
            "expansion": {"horizon": 5},  # [DHMBPO]
        },
    ),
}
