"""What several verbs need."""

from typing import Literal

from tyro.conf import UseAppendAction

PROGRAM = "mbpo-jax"

FigureFormat = UseAppendAction[tuple[Literal["pdf", "svg"], ...]]
"""Formats of figures besides PNG; the option may be given twice."""

Listed = UseAppendAction[tuple[str, ...]]
"""Names or numbers with commas between them; given again, the option adds to them."""


def listed(values: tuple[str, ...], default: str) -> list[str]:
    """Return each of the names or numbers of a `Listed` option, or those that stand for none."""
    return [part.strip() for value in values or (default,) for part in value.split(",")]


def set_up_compilation_cache(enabled: bool = True) -> None:
    """Keep compiled programs between processes, or not."""
    import jax

    from mbpo_jax.training import devices

    jax.config.update("jax_enable_compilation_cache", enabled)
    if enabled:
        devices.use_compilation_cache(devices.default_cache_directory())
