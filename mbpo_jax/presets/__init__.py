"""Named configurations: what each changes of the defaults; each file names its sources."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mbpo_jax.config import ALGORITHMS, Config
from mbpo_jax.errors import ConfigError, shown, suggestion
from mbpo_jax.import_paths import is_import_path, load_function
from mbpo_jax.presets.algorithms import ALGORITHM_PRESETS
from mbpo_jax.presets.analytic import ANALYTIC_PRESETS
from mbpo_jax.presets.base import Preset
from mbpo_jax.presets.brax import BRAX_PRESETS
from mbpo_jax.presets.dmc import DMC_PRESETS
from mbpo_jax.presets.gymnasium import GYMNASIUM_PRESETS

__all__ = [
    "ENVIRONMENT_PRESETS",
    "PRESETS",
    "SWEEPS",
    "Preset",
    "environment_preset",
    "preset",
    "unknown_environment",
]

SWEEPS = {path.stem: path for path in sorted(Path(__file__).with_name("sweeps").glob("*.yaml"))}
"""Sweep files by the name under which `mbpo-jax sweep` knows them."""

ENVIRONMENT_PRESETS = {
    **BRAX_PRESETS,
    **GYMNASIUM_PRESETS,
    **DMC_PRESETS,
    **ANALYTIC_PRESETS,
}

# [ours] Small enough for a minute on a CPU, and yet every part runs: one member of the ensemble is
# no elite, episodes end at the time limit, and rollouts have length 2 after the second of two fits.
_DEBUG = Preset(
    "any environment in about a minute: tiny networks, 2 fits, 2 evaluations",
    {
        "total_env_steps": 200,
        "random_steps": 100,
        "steps_per_fit": 50,
        "epoch_length": 50,
        "eval_every": 50,
        "eval_episodes": 2,
        "checkpoint_every": 50,
        "stop_at_return": None,
        "env": {"episode_length": 60},
        "sac": {
            "utd_ratio": 2,
            "batch_size": 32,
            "hidden_sizes": (32, 32),
            "critic_updates": 0,
            "catches_up": False,
        },
        "ensemble": {"num_members": 3, "num_elites": 2, "hidden_sizes": (32, 32)},
        "planner": {"num_particles": 4},  # each plan meets both elites
        "fit": {
            "batch_size": 32,
            "min_steps": 0,
            "max_epochs": 5,
            "weight_decays": (2.5e-5, 5e-5, 1e-4),
        },
        "rollout": {
            "rollouts_per_step": 4,
            "min_length": 1,
            "max_length": 2,
            "start_epoch": 0,
            "end_epoch": 1,
            "retain_epochs": 1,
            "refreshes_per_fit": 1,
            "real_ratio": 0.25,
            "diagnostic_length": 5,
        },
    },
)

# [ours] Half of the gradient steps that the reference's rule makes on HalfCheetah until 10,000
# steps, a quarter on Hopper, a twentieth on pendulum. Fewer are too few on HalfCheetah, in the
# first fit for the model, in later ones for the returns (experiments: model_fitting, fast_preset).
_FAST = Preset(
    "any environment, fewer gradient steps of the model; learns a little slower (ours)",
    {"fit": {"stopping": "budget", "num_steps": 100, "cold_factor": 25}},
)

PRESETS = {**ENVIRONMENT_PRESETS, **ALGORITHM_PRESETS, "debug": _DEBUG, "fast": _FAST}


def preset(*names: str, algorithm: str = "") -> Config:
    """Return the defaults changed by the named presets, a later one over an earlier one.

    The algorithm's own preset, if it has one, comes behind that of an environment and before the
    others: of the algorithm that is said to be asked for, or that the presets ask for. Its name
    itself is put over the configuration by whoever asks for it.

    One of one's own, `module:function`, is a function that returns what it changes, nested as
    `Config` is.

    Raises:
      ConfigError: a preset is unknown, or changes what is no setting.
    """
    config = _layered(names)
    record = ALGORITHMS.get(algorithm or config.algorithm)
    if record is None or record.preset is None or record.preset in names:
        return config
    behind = 1 if names and names[0] in ENVIRONMENT_PRESETS else 0
    return _layered((*names[:behind], record.preset, *names[behind:]))


def _layered(names: Sequence[str]) -> Config:
    config = Config()
    for name in names:
        if is_import_path(name):
            config = _changed_by_own(config, name)
        elif name in PRESETS:
            config = _changed(config, PRESETS[name].changes)
        else:
            raise ConfigError(
                f"no preset is called {shown(name)} (one of your own would be module:function); "
                f"{suggestion(name, PRESETS)}"
            )
    return config


def environment_preset(environment: str, *names: str, algorithm: str = "") -> Config:
    """Return the preset of an environment, changed by that of an algorithm and by further presets.

    An environment of one's own, `module:function`, has the defaults as its preset.

    Raises:
      ConfigError: the environment or a preset is unknown.
    """
    if is_import_path(environment):
        config = _changed(
            preset(*names, algorithm=algorithm), {"env": {"name": environment, "backend": "own"}}
        )
    elif environment in ENVIRONMENT_PRESETS:
        config = preset(environment, *names, algorithm=algorithm)
    else:
        raise ConfigError(unknown_environment(environment))
    return config


def unknown_environment(name: str) -> str:
    """Return a message that names the environments nearest to an unknown one."""
    return (
        f"no environment is called {shown(name)} (one of your own would be module:function); "
        f"{suggestion(name, ENVIRONMENT_PRESETS)}"
    )


def _changed_by_own(config: Config, path: str) -> Config:
    changes = load_function(path, "preset")()
    if not isinstance(changes, dict):
        raise ConfigError(
            f"preset: {path} returned {type(changes).__name__} where a dictionary is needed, such "
            'as {"sac": {"gamma": 0.98}}'
        )
    from mbpo_jax import config_io  # which takes its time to load

    return config_io.apply(config, changes, path)


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    """Return a copy of a config dataclass with nested changes."""
    values = {
        name: _changed(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **values)
