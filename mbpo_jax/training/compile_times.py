"""How long programs took to compile when they were last needed, and whether they will be again."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import jax
from jax.extend.core import Jaxpr

from mbpo_jax.console import seconds_of
from mbpo_jax.errors import DiskError
from mbpo_jax.files import make_directory, write_json_atomic
from mbpo_jax.training.group import Group, structure
from mbpo_jax.version import __version__

FOLDER = "compile_seconds"
"""In the folder where JAX keeps compiled programs: what is deleted with these is out of date."""
KEEPS_HOST_CALLS = jax.__version_info__ >= (0, 12)
"""Whether JAX keeps programs that call the host, as those that step Gymnasium's tasks do."""


class CompileTimes:
    """Seconds by name, of all programs of one structure on one kind of device."""

    def __init__(self, group: Group, num_devices: int) -> None:
        """Read what an earlier process kept, if there is a cache of compiled programs."""
        options = jax.config.values
        directory = options["jax_compilation_cache_dir"]
        self._is_kept = bool(directory) and options["jax_enable_compilation_cache"]
        versions = __version__, jax.__version__
        kind = versions, jax.devices()[0].device_kind, num_devices, len(group.runs)
        name = hashlib.sha256(repr((structure(group.config), kind)).encode()).hexdigest()[:16]
        self._directory = Path(directory or ".")
        self._path = self._directory / FOLDER / f"{name}.json"
        self._before: dict[str, float] = {}
        if self._is_kept:
            with contextlib.suppress(OSError, ValueError):
                self._before = json.loads(self._path.read_text())
        self._now: dict[str, float] = {}

    def last(self, name: str) -> str:
        """Say how long a program took last time, if that is known."""
        last = self._before.get(name)
        return "" if last is None else f"{seconds_of(last)} last time"

    def when(self, jaxpr: Jaxpr) -> str:
        """Say at which starts a program is compiled."""
        if not self._is_kept:
            return "at every start, as there is no compilation cache"
        if calls_host(jaxpr) and not KEEPS_HOST_CALLS:
            return f"at every start: JAX {jax.__version__} keeps no program with host calls"
        is_closed = self._directory.is_dir() and not os.access(self._directory, os.W_OK)
        if self._before or is_closed:
            return ""
        return "at the first start only: compiled programs are kept"

    def keep(self, name: str, seconds: float) -> None:
        """Note how long a program took."""
        self._now[name] = seconds
        if self._is_kept:
            # Without the note, the next start knows less; nothing else depends on it.
            with contextlib.suppress(DiskError):
                make_directory(self._path.parent)
                write_json_atomic(self._path, self._before | self._now)


def calls_host(jaxpr: Jaxpr) -> bool:
    """Return whether a program calls the host, in any of its parts."""
    for equation in jaxpr.eqns:
        parts = jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns"))
        if "callback" in equation.primitive.name:
            return True
        # Of a closed jaxpr, the one inside.
        if any(calls_host(getattr(x, "jaxpr", x)) for x in parts if hasattr(x, "eqns")):
            return True
    return False
