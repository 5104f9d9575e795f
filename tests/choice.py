"""Which of a test's many parameters the continuous integration takes, and which `make test-all`."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def mostly(mark: pytest.MarkDecorator, values: Iterable[Any], chosen: Callable) -> list[Any]:
    """Mark the parameters that are not chosen; a tuple holds several arguments."""
    return [
        value
        if chosen(value)
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=mark)
        for value in values
    ]


def mostly_exhaustive(values: Iterable[Any], chosen: Callable[[Any], bool]) -> list[Any]:
    """Mark as exhaustive the parameters that are not chosen."""
    return mostly(pytest.mark.exhaustive, values, chosen)
