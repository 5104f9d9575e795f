"""What a run leaves on disk about itself: rows of JSON, its environment.

Row files are append-only, and their sizes are part of each checkpoint. A run that was killed is cut
back to the sizes of the checkpoint it continues from, so it repeats no row and misses none. A
checksum of each row is part of it, too: a row that is not as it was written is found, and named.
"""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbpo_jax.files import LogError, append_rows, writing
from mbpo_jax.version import __version__

if TYPE_CHECKING:
    from mbpo_jax.training.trackers.follower import Trackers  # which read what is written here

EVALS = "evals.jsonl"
METRICS = "metrics.jsonl"
GRADIENTS = "gradients.jsonl"
"""There is none unless gradients are tracked."""
ROW_FILES = (EVALS, METRICS, GRADIENTS)
CHECKS = "checks"
"""In a position: of each row file, the CRC-32 of its rows one after the other, in hexadecimal."""
BEGINNING: Mapping[str, Any] = {
    **dict.fromkeys(ROW_FILES, 0),
    "env_steps": -1,
    CHECKS: dict.fromkeys(ROW_FILES, ""),
}
"""Position of a log that holds nothing."""

_DISTRIBUTIONS = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint"),
    *("brax", "mujoco", "gymnasium", "mujoco-mjx", "playground"),
)


class RunLog:
    """Evaluations and metrics of one run directory, as row files and for trackers.

    A context manager. Trackers begin where the log is first cut back to, and end when it is closed,
    or when the context is left, as those of a training that failed or was asked to end.
    """

    def __init__(self, directory: Path, trackers: "Trackers | None" = None) -> None:
        """Open the log in an existing directory; what holds rows is to be cut back first."""
        self._directory, self._trackers = directory, trackers
        self._env_steps = BEGINNING["env_steps"]
        self._checks = dict(BEGINNING[CHECKS])

    def write_evals(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append evaluations: `env_steps`, `run`, `seed` and results such as `return_mean`."""
        self._write(EVALS, rows)

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append metrics: `env_steps`, `run`, `seed` and values named `component/name`."""
        self._write(METRICS, rows)

    def write_gradients(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append metrics of gradient estimators: `env_steps`, `run`, `seed`, `estimator`, ..."""
        self._write(GRADIENTS, rows)

    def position(self) -> dict[str, Any]:
        """Return where the log stands: file sizes in bytes, the newest step, and `CHECKS`."""
        sizes = {name: _size(self._directory / name) for name in ROW_FILES}
        return {**sizes, "env_steps": self._env_steps, CHECKS: dict(self._checks)}

    def rewind(self, position: Mapping[str, Any]) -> None:
        """Drop everything written after `position`, from `position()` or `BEGINNING`.

        A file that the position does not name did not exist then. Trackers begin here.

        Raises:
          LogError: what was written before it is not there any more. Nothing is changed then.
          DiskError: the files cannot be written.
        """
        if problem := damage(self._directory, position):
            raise LogError(f"{problem}; restore the file from a copy")
        for name in ROW_FILES:
            path = self._directory / name
            with writing(path):
                if path.exists():
                    os.truncate(path, position.get(name, 0))
                elif name != GRADIENTS:
                    path.touch()
            known = position.get(CHECKS, {}).get(name)
            self._checks[name] = _checks(_rows(path)) if known is None else known
        self._env_steps = position["env_steps"]
        if self._trackers:
            self._trackers.begin(self._env_steps)

    def close(self, outcome: str = "failed") -> None:
        """Tell trackers how training ended, and wait until they have everything."""
        if self._trackers:
            self._trackers.close(outcome)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        asked = kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit))
        self.close("interrupted" if asked else "failed")

    def _write(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        lines = append_rows(self._directory / name, rows)
        # Of what was to be written, not of what can be read: the disk may be what does the damage.
        self._checks[name] += _checks(lines.splitlines())
        for row in rows:
            self._env_steps = max(self._env_steps, int(row["env_steps"]))
        if self._trackers:
            self._trackers.log(name, rows)


def damage(directory: Path, position: Mapping[str, Any]) -> str | None:
    """Say what of a log is not as it was at a position any more, None if all of it is.

    Positions of earlier versions have no checksums; of these, only sizes are compared.

    Args:
      directory: of the run.
      position: from `RunLog.position`.
    """
    for name in ROW_FILES:
        path, size = directory / name, position.get(name, 0)
        found = _rows(path, size)
        known = position.get(CHECKS, {}).get(name)
        for number, row in enumerate(found, start=1):
            if known is not None and known[_DIGITS * (number - 1) : _DIGITS * number] != _check(
                row
            ):
                return f"{path}, row {number}: it is not as it was written"
        if (actual := _size(path)) < size:
            what = f"it ends behind row {len(found)}" if actual else "it is empty"
            return f"{path}: {what} ({actual} bytes; {size} when the checkpoint was saved)"
        if known is not None and len(known) != _DIGITS * len(found):  # an end of a row is gone
            return f"{path}, row {len(found) + 1}: it is not as it was written"
    return None


def goes_on_after(directory: Path, position: Mapping[str, Any]) -> bool:
    """Return whether a log has anything that came after a position."""
    return any(_size(directory / name) > position.get(name, 0) for name in ROW_FILES)


_DIGITS = 8


def _check(row: bytes) -> str:
    return f"{zlib.crc32(row):0{_DIGITS}x}"


def _checks(rows: Sequence[bytes]) -> str:
    return "".join(map(_check, rows))


def _rows(path: Path, size: int | None = None) -> list[bytes]:
    """Return the finished rows of the first so many bytes of a file, or of all of it."""
    if not path.exists():
        return []
    with open(path, "rb") as file:
        return file.read(size).split(b"\n")[:-1]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def environment_info(command: Sequence[str], devices: Sequence[str] = ()) -> dict[str, Any]:
    """Describe what a run needs to be understood later: software, source, command, machine, time.

    Args:
      command: the command line, program first.
      devices: descriptions of the accelerators in use.

    Returns:
      A JSON object; None stands for a distribution that is not installed, and for the revision
      where the package does not run from a git working tree.
    """
    revision, dirty = _git_revision(Path(__file__).parents[2])
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host_cores": os.cpu_count(),
        "devices": list(devices),
        "versions": {"mbpo-jax": __version__} | {name: _version(name) for name in _DISTRIBUTIONS},
        "git_revision": revision,
        "git_dirty": dirty,
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision(source: Path) -> tuple[str | None, bool | None]:
    """Return the commit of a working tree and whether tracked files differ from it."""
    # Elsewhere git would answer for whatever project the installation happens to lie in.
    if not (source / ".git").exists():
        return None, None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    described = answer.stdout.strip()
    return described.removesuffix("-dirty"), described.endswith("-dirty")
