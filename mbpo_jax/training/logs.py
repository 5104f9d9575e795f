"""What a run leaves on disk about itself: rows of JSON, TensorBoard events, its environment.

Row files are append-only, and their sizes are part of each checkpoint. A run that was killed is cut
back to the sizes of the checkpoint it continues from, so it repeats no row and misses none.
"""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from mbpo_jax.files import LogError, append_rows, to_plain
from mbpo_jax.version import __version__

EVALS = "evals.jsonl"
METRICS = "metrics.jsonl"
GRADIENTS = "gradients.jsonl"
"""There is none unless gradients are tracked."""
ROW_FILES = (EVALS, METRICS, GRADIENTS)
BEGINNING: Mapping[str, int] = {**dict.fromkeys(ROW_FILES, 0), "env_steps": -1}
"""Position of a log that holds nothing."""

_INDEX_FIELDS = ("env_steps", "run", "seed")
_GRADIENT_SCALARS = ("snr_db", "relative_variance", "squared_bias", "cosine")
_DISTRIBUTIONS = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint"),
    *("brax", "mujoco", "gymnasium", "mujoco-mjx", "playground"),
)


class RunLog:
    """Evaluations and metrics of one run directory, as row files and as TensorBoard events.

    A context manager; TensorBoard's last events reach the disk when it is closed.
    """

    def __init__(self, directory: Path) -> None:
        """Open the log in an existing directory, behind whatever it holds already."""
        self._directory = directory
        self._writers: dict[int, SummaryWriter] = {}
        self._purge_step: int | None = None
        self._env_steps = BEGINNING["env_steps"]
        for name in (EVALS, METRICS):
            append_rows(directory / name, [])

    def write_evals(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append evaluations: `env_steps`, `run`, `seed` and results such as `return_mean`."""
        self._write(EVALS, rows, prefix="eval/")

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append metrics: `env_steps`, `run`, `seed` and values named `component/name`."""
        self._write(METRICS, rows, prefix="")

    def write_gradients(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append metrics of gradient estimators: `env_steps`, `run`, `seed`, `estimator`, ..."""
        append_rows(self._directory / GRADIENTS, rows)
        for row in rows:
            scalars = {name: row[name] for name in (*_INDEX_FIELDS, *_GRADIENT_SCALARS)}
            self._add_scalars(scalars, f"gradients/{row['estimator']}/")

    def position(self) -> dict[str, int]:
        """Return where the log stands: file sizes in bytes, and the newest step in it."""
        sizes = {name: _size(self._directory / name) for name in ROW_FILES}
        return {**sizes, "env_steps": self._env_steps}

    def rewind(self, position: Mapping[str, int]) -> None:
        """Drop everything written after `position`, from `position()` or `BEGINNING`.

        TensorBoard is told to forget later steps; what its older files hold stays in them. A file
        that the position does not name did not exist then.

        Raises:
          LogError: a file is shorter than it was at that position. Nothing is changed then.
        """
        for name in ROW_FILES:
            self._check_reaches(self._directory / name, position.get(name, 0))
        self.close()
        for name in ROW_FILES:
            if (self._directory / name).exists():
                os.truncate(self._directory / name, position.get(name, 0))
        self._env_steps = position["env_steps"]
        self._purge_step = self._env_steps + 1

    def close(self) -> None:
        """Write out and close the TensorBoard files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _check_reaches(path: Path, size: int) -> None:
        if (actual := _size(path)) < size:
            raise LogError(
                f"{path}: {actual} bytes, but {size} when the checkpoint was saved, so rows are "
                "missing; restore the file from a copy, or train in a new run directory"
            )

    def _write(self, name: str, rows: Sequence[Mapping[str, Any]], prefix: str) -> None:
        append_rows(self._directory / name, rows)
        for row in rows:
            self._env_steps = max(self._env_steps, int(row["env_steps"]))
            self._add_scalars(row, prefix)

    def _add_scalars(self, row: Mapping[str, Any], prefix: str) -> None:
        writer = self._writer(int(row["run"]))
        for name, value in to_plain(row).items():
            if name not in _INDEX_FIELDS and value is not None:
                writer.add_scalar(prefix + name, value, int(row["env_steps"]))

    def _writer(self, run: int) -> SummaryWriter:
        if run not in self._writers:
            directory = self._directory / "tensorboard" / f"run_{run}"
            directory.mkdir(parents=True, exist_ok=True)
            # File names hold only whole seconds, so a quick restart would overwrite its forerunner.
            suffix = f".{len(list(directory.iterdir()))}"
            self._writers[run] = SummaryWriter(
                str(directory), purge_step=self._purge_step, filename_suffix=suffix
            )
        return self._writers[run]


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
