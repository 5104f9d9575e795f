"""Model-accelerated reinforcement learning in JAX.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbpo_jax.config import Config
    from mbpo_jax.envs import make_env
    from mbpo_jax.presets import preset
    from mbpo_jax.training.driver import train

__all__ = ["Config", "make_env", "preset", "train"]

_MODULES = {
    "Config": "mbpo_jax.config",
    "make_env": "mbpo_jax.envs",
    "preset": "mbpo_jax.presets",
    "train": "mbpo_jax.training.driver",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
