"""Presets of algorithms whose published numbers are the same for all tasks, put over a task's own.

Sources:
  [DHMBPO] Kubo, Parmas and Ishii 2025, arXiv:2512.15439, and the code they published.
  [ours] chosen here.
"""

from mbpo_jax.presets.base import Preset

ALGORITHM_PRESETS = {
    "dhmbpo": Preset(
        "DHMBPO's numbers, the same for all tasks",
        {
            "algorithm": "dhmbpo",
            "epoch_length": 200,  # for so many steps model states are kept, [DHMBPO]
            "sac": {
                "utd_ratio": 1,  # [DHMBPO]
                "hidden_sizes": (256, 256, 256),  # [DHMBPO]
                "activation": "swish",  # [DHMBPO]
                "num_critics": 5,  # [DHMBPO]
                "num_target_critics": 2,  # [DHMBPO]
                "policy_value": "mean",  # [DHMBPO]
                "critic_layer_norm": True,  # [DHMBPO]
                "scale_observations": True,  # [DHMBPO]
                "value_range": "rewards",  # [DHMBPO]
                "critic_updates": 60,  # [DHMBPO]: 250 every 1,000 steps
                "catches_up": True,  # [DHMBPO]
                "gamma": 0.995,  # [DHMBPO]
                "initial_alpha": 0.1,  # [DHMBPO]
                "target_entropy": None,  # [DHMBPO]
            },
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
