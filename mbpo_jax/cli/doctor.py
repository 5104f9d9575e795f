"""Looking at the machine: what is there, what is missing, and how to mend it."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable
from typing import NamedTuple

from mbpo_jax.errors import ConfigError, in_units
from mbpo_jax.training import devices
from mbpo_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "brax", "gymnasium", "mujoco", "orbax-checkpoint")

EXTRAS = {
    "playground": "dmc",
    "onnx": "onnx",
    "ray": "ray",
    "submitit": "slurm",
    "wandb": "wandb",
    "trackio": "trackio",
}
"""Packages that only some need, and the extra each comes with."""

LOW_MEMORY = 2 * devices.GIB
"""Below this, compiling and a replay buffer of the usual size get into each other's way."""

LOW_DISK = devices.GIB
"""Below this, a few checkpoints fill the disk."""


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
      name: what was looked at.
      value: what is there.
      advice: how to mend it; empty if nothing is wrong.
      fatal: nothing can be trained before it is mended.
    """

    name: str
    value: str
    advice: str = ""
    fatal: bool = False


def examine() -> int:
    """Print what is there and what is wrong with it; return 0 if the machine can train, else 1."""
    findings = [finding for check in CHECKS for finding in check()]
    for finding in findings:
        print(f"{finding.name:>18}: {finding.value}")
    problems = [finding for finding in findings if finding.advice]
    for finding in problems:
        print(f"{'error' if finding.fatal else 'warning'}: {finding.name}: {finding.advice}")
    print("something has to be mended first" if _fatal(problems) else "ready to train")
    return 1 if _fatal(problems) else 0


def _fatal(findings: list[Finding]) -> bool:
    return any(finding.fatal for finding in findings)


def versions() -> list[Finding]:
    """Return the versions of all that decides numbers, and of the extras."""
    return [
        Finding("mbpo-jax", __version__),
        Finding("python", platform.python_version()),
        *map(_package, PACKAGES),
        *map(_optional, EXTRAS),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "missing", f"install it: pip install {name}", fatal=True)


def _optional(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, f"not installed (extra {EXTRAS[name]!r})")


def accelerators() -> list[Finding]:
    """Return the devices that JAX computes on, and whether it overlooks a GPU."""
    import jax

    try:
        devices.check_platform()
    except ConfigError as error:
        return [Finding("devices", "none", str(error), fatal=True)]
    advice = ""
    if jax.default_backend() == "cpu" and shutil.which("nvidia-smi"):
        advice = "a GPU is there but not used; install JAX for it: pip install 'mbpo-jax[cuda13]'"
    return [Finding("devices", ", ".join(devices.describe_devices()), advice)]


def resources() -> list[Finding]:
    """Return cores, free memory and free disk space where runs are written by default."""
    memory, disk = devices.free_host_bytes(), shutil.disk_usage(".").free
    low_memory = memory is not None and memory < LOW_MEMORY
    writable = os.access(".", os.W_OK)
    return [
        Finding("cores", str(devices.available_cores())),
        Finding(
            "free memory",
            "unknown" if memory is None else in_units(memory),
            "close other programs, or train with a smaller replay_capacity" if low_memory else "",
        ),
        Finding(
            "free disk",
            f"{in_units(disk)} here",
            "free some space, or train with --run-dir on another disk" if disk < LOW_DISK else "",
        ),
        Finding(
            "this directory",
            "writable" if writable else "read-only",
            "" if writable else "train with --run-dir in a directory you may write to",
        ),
    ]


def compilation_cache() -> list[Finding]:
    """Return where compiled programs are kept and how much they take."""
    directory = devices.default_cache_directory()
    if not directory.exists():
        return [Finding("compilation cache", f"{directory} (made by the first run)")]
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    writable = os.access(directory, os.W_OK)
    advice = "" if writable else f"permit writing to {directory}, or set XDG_CACHE_HOME elsewhere"
    return [Finding("compilation cache", f"{directory} ({in_units(size)})", advice)]


def rendering() -> list[Finding]:
    """Return the library that draws animations."""
    from mbpo_jax.reports import animation

    backend = animation.find_gl_backend()
    if backend is not None:
        return [Finding("OpenGL", backend)]
    advice = "no rollout.webp without it; install the Debian package libegl1 or libosmesa6"
    return [Finding("OpenGL", "none", advice)]


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    versions,
    accelerators,
    resources,
    compilation_cache,
    rendering,
)
