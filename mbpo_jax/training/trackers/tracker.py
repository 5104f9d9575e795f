"""What a tracker is, which ones there are, and what of a row they are told."""

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax.errors import ConfigError
from mbpo_jax.files import Row, to_plain
from mbpo_jax.import_paths import is_import_path, load_function, name_problem
from mbpo_jax.training.logs import EVALS, GRADIENTS, METRICS

TENSORBOARD = "tensorboard"
DEFAULT = (TENSORBOARD,)
NONE = "none"
"""On a command line, no tracker at all."""

_INDEX_FIELDS = ("env_steps", "run", "seed")
_GRADIENT_SCALARS = ("snr_db", "relative_variance", "squared_bias", "cosine")


class TrackedRun(NamedTuple):
    """What a tracker is told of one run.

    Attributes:
      id: by which it is known from its first step to its last, however often it is resumed.
      name: of the run directory, and what tells the run from others in it.
      tags: its algorithm and its environment.
      config: its settings, by dotted path, as far as anything reads them.
    """

    id: str
    name: str
    tags: list[str]
    config: dict[str, Any]


class Session(NamedTuple):
    """What a tracker is told of the runs of a directory before anything else.

    Attributes:
      directory: the run directory.
      group: name of what was started together: a sweep's, or the run directory's.
      runs: in the order of their numbers.
      env_steps: where the runs go on; what came later does not count any more. -1 if they begin.
    """

    directory: Path
    group: str
    runs: list[TrackedRun]
    env_steps: int


class Tracker(NamedTuple):
    """Someone who is told of the runs of one directory, in the order of their steps.

    Attributes:
      log: `(run, env_steps, values)`: a run's numbers at a step, by name.
      show: `(env_steps, name, path)`: a figure of all runs, a PNG file.
      close: `(outcome)`: how training ended: "finished", "diverged", "interrupted" or "failed".
        Returns when everything has arrived.
    """

    log: Callable[[int, int, Mapping[str, float]], None]
    show: Callable[[int, str, Path], None]
    close: Callable[[str], None]


class TrackerRecord(NamedTuple):
    """A tracker that is known by name.

    Attributes:
      maker: its `make_tracker(session)`, by import path.
      distribution: of its library.
      extra: that brings the library.
    """

    maker: str
    distribution: str
    extra: str


_HERE = "mbpo_jax.training.trackers"
TRACKERS: Mapping[str, TrackerRecord] = {
    TENSORBOARD: TrackerRecord(f"{_HERE}.tensorboard:make_tracker", "tensorboardX", ""),
    "wandb": TrackerRecord(f"{_HERE}.wandb:make_tracker", "wandb", "wandb"),
    "trackio": TrackerRecord(f"{_HERE}.trackio:make_tracker", "trackio", "trackio"),
}


def chosen(log: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of trackers, each once.

    Args:
      log: names, or text with commas between them; "none" for no tracker.

    Raises:
      ConfigError: a name is neither known nor an import path.
    """
    names = log.split(",") if isinstance(log, str) else list(log or [NONE])
    names = dict.fromkeys(str(name).strip() for name in names)
    names.pop(NONE, None)
    if found := problems(list(names)):
        raise ConfigError(*(f"log: {text}" for text in found))
    return tuple(names)


def problems(names: Sequence[Any]) -> list[str]:
    """Return what is wrong with the names of trackers."""
    return [text for name in names if (text := name_problem(str(name), TRACKERS))]


def check(names: Sequence[str]) -> None:
    """Look whether trackers could be made here, without loading their libraries.

    Raises:
      ConfigError: a library is missing, or there is no function at an import path.
    """
    missing = []
    for name in names:
        if is_import_path(name):
            make_by(name)
            continue
        try:
            importlib.metadata.version(TRACKERS[name].distribution)
        except importlib.metadata.PackageNotFoundError:
            known = TRACKERS[name]
            source = f"mbpo-jax[{known.extra}]" if known.extra else known.distribution
            missing.append(
                f"log: {known.distribution} is not installed; pip install '{source}', or leave "
                f"{name} out"
            )
    if missing:
        raise ConfigError(*missing)


def make_by(name: str) -> Callable[[Session], Tracker]:
    """Return what makes a tracker.

    Raises:
      ConfigError: there is no function at an import path.
    """
    return load_function(TRACKERS[name].maker if name in TRACKERS else name, "log", "session")


def scalars(file: str, row: Row) -> dict[str, float]:
    """Return the numbers of a row, by the names under which trackers show them.

    Args:
      file: name of the row file.
      row: of that file.
    """
    prefix, names = "", [name for name in row if name not in _INDEX_FIELDS]
    if file == EVALS:
        prefix = "eval/"
    elif file == GRADIENTS:
        prefix, names = f"gradients/{row['estimator']}/", list(_GRADIENT_SCALARS)
    else:
        assert file == METRICS
    values = to_plain({name: row[name] for name in names})
    return {prefix + name: value for name, value in values.items() if value is not None}
