"""The runs of one program: what they share, and the seeds and numbers in which they differ."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mbpo_jax import config_io
from mbpo_jax.config import ENDS, Config
from mbpo_jax.errors import ConfigError
from mbpo_jax.fields import field_types, is_data, is_whole


class Group(NamedTuple):
    """Runs that are trained by one program.

    Attributes:
      config: of the first run, but with `num_seeds` saying how many there are.
      runs: one configuration each, with a seed of its own; all else that differs is data.
    """

    config: Config
    runs: tuple[Config, ...]

    @property
    def seeds(self) -> list[int]:
        """Return the seed of each run."""
        return [run.seed for run in self.runs]

    def differences(self) -> list[dict[str, Any]]:
        """Return for every run its seed and its values of the fields in which runs differ."""
        flat = [config_io.flatten(run) for run in self.runs]
        varied = [path for path in flat[0] if len({values[path] for values in flat}) > 1]
        return [{path: values[path] for path in ("seed", *varied)} for values in flat]

    def lengthened(self, config: Config) -> "Group":
        """Return the same runs with the end of a configuration, unless they would end earlier.

        When to end is all that a run does not depend on until then.
        """
        if config.total_env_steps < self.config.total_env_steps:
            return self
        ends = {name: getattr(config, name) for name in ENDS}
        first, *runs = (dataclasses.replace(each, **ends) for each in (self.config, *self.runs))
        return Group(first, tuple(runs))


def group_of(config: Config) -> Group:
    """Return the runs of a configuration: equal but for seeds in a row."""
    seeds = ((config.seed + i) % 2**32 for i in range(config.num_seeds))
    return Group(
        config, tuple(dataclasses.replace(config, seed=seed, num_seeds=1) for seed in seeds)
    )


def make_group(runs: Sequence[Config]) -> Group:
    """Put runs of one structure together.

    Raises:
      ValueError: they cannot share a program.
    """
    if len({structure(run) for run in runs}) != 1:
        raise ValueError("runs of one program may differ in seeds and numbers only")
    return joined(runs)


def joined(runs: Sequence[Config]) -> Group:
    """Put runs together that are known to be of one structure."""
    return Group(dataclasses.replace(runs[0], num_seeds=len(runs)), tuple(runs))


def structure(config: Config) -> tuple[tuple[str, Any], ...]:
    """Return all of a configuration that shapes the program; equal runs can share one."""
    data = data_paths()

    def fixed(path: str, value: Any) -> Any:
        if path not in data:
            return value
        # A number that is not there is no leaf.
        return len(value) if isinstance(value, tuple) else value is None

    values = config_io.flatten(config)
    return tuple(
        (path, fixed(path, value))
        for path, value in values.items()
        if path not in ("seed", "num_seeds")
    )


def structural_differences(first: Config, other: Config) -> list[str]:
    """Say in which settings two configurations differ that one program cannot hold side by side."""
    pairs = zip(structure(first), structure(other), strict=True)
    return [
        f"{path}: {one!r} and {two!r} cannot be side by side, as it shapes the program"
        for (path, one), (_, two) in pairs
        if one != two
    ]


@functools.cache
def data_paths() -> Mapping[str, type]:
    """Return the dotted paths of the fields that may differ within a program: float or int."""
    return dict(_data_paths(Config))


def _data_paths(cls: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    for name, annotation in field_types(cls).items():
        if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            yield from _data_paths(annotation, f"{prefix}{name}.")
        elif is_data(annotation):
            yield prefix + name, int if is_whole(annotation) else float


def restored(config: Config, rows: Sequence[dict[str, Any]], source: str) -> Group:
    """Make a group of what its first run shares with all, and of its `differences`.

    Raises:
      ConfigError: a row holds something that is no field or out of range, or rows are missing.
    """
    one = dataclasses.replace(config, num_seeds=1)
    runs = [config_io.apply(one, config_io.nested(row), source) for row in rows]
    if len(runs) != config.num_seeds or {structure(run) for run in runs} != {structure(config)}:
        raise ConfigError(
            f"{source} does not hold the {config.num_seeds} runs of one program that it was made "
            "for; restore it from a copy"
        )
    return Group(config, tuple(runs))
