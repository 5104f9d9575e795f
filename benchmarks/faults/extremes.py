"""Configurations at the bounds of their ranges: those that are accepted train for a few steps."""

import dataclasses
import functools
import shutil
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from benchmarks.faults.in_process import attempt
from benchmarks.faults.record import ACCEPTED, REFUSED, Fault, judged, rng_of
from mbpo_jax import config_io
from mbpo_jax.config import ALGORITHMS, Config
from mbpo_jax.config.reading import read_settings
from mbpo_jax.fields import field_types
from mbpo_jax.presets import environment_preset
from mbpo_jax.yaml_files import to_yaml

FEW: Mapping[str, Any] = {
    "random_steps": 10,
    "steps_per_fit": 5,
    "total_env_steps": 20,
    "eval_every": 5,
    "eval_episodes": 1,
    "checkpoint_every": 5,
    "env.episode_length": 5,
}
LEFT = ("seed", "total_env_steps", "eval_every", "checkpoint_every")
"""Settings whose bounds say nothing, or are refused whatever else is drawn."""


def make(seed: int, number: int, folder: Path) -> Fault:
    """Train an algorithm with one to four of the settings that it reads at a bound."""
    import jax

    rng = rng_of(seed, "extremes", number)
    algorithm = rng.choice(list(ALGORITHMS))
    environment = "maze" if ALGORITHMS[algorithm].is_tabular else "pendulum"
    base = environment_preset(environment, "debug", algorithm=algorithm)
    base = dataclasses.replace(base, algorithm=algorithm)
    bounds = {path: bounds_of(path, value) for path, value in read_settings(base).items()}
    paths = [path for path in bounds if bounds[path] and path not in LEFT]
    drawn = {path: rng.choice(bounds[path]) for path in rng.sample(paths, rng.randint(1, 4))}
    folder = folder / f"extremes-{number}"
    folder.mkdir()
    values = config_io.nested({**FEW, **drawn})
    (folder / "settings.yaml").write_text(to_yaml(values))
    command = ("train", environment, "--preset", "debug", "--algorithm", algorithm)
    ending = attempt((*command, "--config", "settings.yaml", "--run-dir", "run"), folder)
    jax.clear_caches()  # of programs that nobody asks for again
    shutil.rmtree(folder)
    problems = ending.problems(allowed=(0, 1, 2))
    if ending.code == 1 and "every run became non-finite" not in ending.output:
        problems.append("exit code 1 without a reason")
    what = f"{algorithm}: {', '.join(f'{path}={value}' for path, value in drawn.items())}"
    return judged(what, problems, ending.output, REFUSED if ending.code == 2 else ACCEPTED)


def bounds_of(path: str, value: Any) -> list[Any]:
    """Return the bounds of a setting, or what is next to them; none where it has none.

    Args:
      path: of the setting.
      value: that it has; of several numbers all are put to a bound.
    """
    limits = _limits().get(path, ())
    least: Any = next((limit.ge for limit in limits if isinstance(limit, Ge)), None)
    most: Any = next((limit.le for limit in limits if isinstance(limit, Le)), None)
    found: list[Any] = [] if least is None else [least, least + 1] if least in (0, 1) else [least]
    found += [] if most is None or most > 1 else [most]  # larger ones tell what a number can hold
    return [[number] * len(value) for number in found] if isinstance(value, tuple) else found


@functools.cache
def _limits() -> dict[str, tuple[Any, ...]]:
    """Return the limits of every setting that is a number, or several, by dotted path."""

    def of(cls: type, prefix: str = "") -> dict[str, tuple[Any, ...]]:
        found: dict[str, tuple[Any, ...]] = {}
        for name, annotation in field_types(cls).items():
            if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
                found |= of(annotation, f"{prefix}{name}.")
            else:
                found[prefix + name] = _metadata(annotation)
        return found

    return of(Config)


def _metadata(annotation: Any) -> tuple[Any, ...]:
    """Return the limits in an annotation, be it within a tuple or beside None."""
    if typing.get_origin(annotation) is Annotated:
        return annotation.__metadata__
    return tuple(limit for part in typing.get_args(annotation) for limit in _metadata(part))
