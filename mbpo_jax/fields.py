"""Fields of configurations: their ranges, whether they are data or structure, and messages.

This module does not import JAX, because `mbpo-jax --help` has to answer at once.
"""

import dataclasses
import functools
import re
import sys
import types
import typing
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from mbpo_jax.errors import ConfigError, shown, suggestion

STRUCTURAL = "structural"
"""Marks a float that decides loop bounds and therefore cannot differ between runs."""
DATA = "data"
"""Marks a whole number that decides no shape, and may differ between runs."""

MOST_RUNS = 4_000
"""In a program or a sweep file; each is a configuration in memory before any is trained."""
MOST_ITEMS = 100
"""In a list, which may be as many layers of a network to trace."""

MOST = Le(2**31 - 1)
Positive = Annotated[int, Ge(1), MOST]
NonNegative = Annotated[int, Ge(0), MOST]
Runs = Annotated[int, Ge(1), Le(MOST_RUNS)]
Rate = Annotated[float, Gt(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
LogVariance = Annotated[float, Ge(-30), Le(30)]
"""Standard deviations from 3e-7 to 3e6: what the arithmetic of float32 can tell apart."""


def field_types(cls: type) -> dict[str, Any]:
    """Return the resolved annotation of every field of a dataclass, with `Annotated` metadata."""
    return _field_types(cls).copy()


@functools.cache
def _field_types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def is_data(annotation: Any) -> bool:
    """Say whether a field with this annotation is traced data (True) or structure (False)."""
    if STRUCTURAL in getattr(annotation, "__metadata__", ()):
        return False
    if is_whole(annotation):
        return True
    base = annotation.__origin__ if typing.get_origin(annotation) is Annotated else annotation
    arguments = typing.get_args(base)
    return (
        base is float
        or dataclasses.is_dataclass(base)
        or (bool(arguments) and is_data(arguments[0]))
    )


def is_whole(annotation: Any) -> bool:
    """Say whether a field that is data holds whole numbers."""
    return DATA in getattr(annotation, "__metadata__", ())


def field_error(name: str, value: Any, annotation: Any) -> str | None:
    """Return what is wrong with a value that its annotation does not allow, or None.

    Only text, numbers and tuples of them are looked at: while JAX traces, a field holds an array.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float, tuple)):
        return None
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    if isinstance(value, str) and typing.get_origin(annotation) is Literal:
        allowed = typing.get_args(annotation)
        return None if value in allowed else f"{name}: {shown(value)}; {suggestion(value, allowed)}"
    if isinstance(value, tuple) and typing.get_origin(annotation) is tuple:
        if len(value) > MOST_ITEMS:
            return f"{name}: {len(value)} items are too many; use up to {MOST_ITEMS}"
        element = typing.get_args(annotation)[0]
        errors = [field_error(f"{name}[{i}]", part, element) for i, part in enumerate(value)]
        return next(filter(None, errors), None)
    if isinstance(value, str | tuple):
        return None
    if not abs(value) <= sys.float_info.max:  # which holds of a whole number of any size, too
        return f"{name}: {shown(value)} is not a finite number"
    for limit in getattr(annotation, "__metadata__", ()):
        if isinstance(limit, Ge) and not value >= typing.cast(float, limit.ge):
            return f"{name}: {shown(value)} is too small; use a value >= {limit.ge}"
        if isinstance(limit, Gt) and not value > typing.cast(float, limit.gt):
            return f"{name}: {shown(value)} is too small; use a value > {limit.gt}"
        if isinstance(limit, Lt) and not value < typing.cast(float, limit.lt):
            return f"{name}: {shown(value)} is too large; use a value < {limit.lt}"
        if isinstance(limit, Le) and not value <= typing.cast(float, limit.le):
            return f"{name}: {shown(value)} is too large; use a value <= {limit.le}"
    return None


def file_name(name: str) -> str:
    """Return the name of an environment or algorithm as it can stand in the name of a file."""
    return re.sub(r"[^\w.-]+", "-", name)


class Checked:
    """Checks every number against its annotated range, then the rules between fields."""

    def __post_init__(self) -> None:
        errors = [
            error
            for name, annotation in _field_types(type(self)).items()
            if (error := field_error(name, getattr(self, name), annotation))
        ]
        errors = errors or self._rule_errors()
        if errors:
            raise ConfigError(*errors)

    def _rule_errors(self) -> list[str]:
        return []
