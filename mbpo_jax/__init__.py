"""Model-accelerated reinforcement learning in JAX.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib

from mbpo_jax.version import __version__ as __version__

TYPE_CHECKING = False  # as type checkers know it; `typing` takes longer to load than all else here
if TYPE_CHECKING:
    from typing import Any

    from mbpo_jax.api import load, train
    from mbpo_jax.config import Config
    from mbpo_jax.envs import make_env
    from mbpo_jax.presets import preset
    from mbpo_jax.run import Run
    from mbpo_jax.training.layout import stack
    from mbpo_jax.training.loop import make_program

__all__ = ["Config", "Run", "load", "make_env", "make_program", "preset", "stack", "train"]

_MODULES = {
    "Config": "mbpo_jax.config",
    "Run": "mbpo_jax.run",
    "load": "mbpo_jax.api",
    "make_env": "mbpo_jax.envs",
    "make_program": "mbpo_jax.training.loop",
    "preset": "mbpo_jax.presets",
    "stack": "mbpo_jax.training.layout",
    "train": "mbpo_jax.api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
