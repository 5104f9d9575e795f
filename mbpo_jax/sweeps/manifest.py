"""What a sweep consists of: the runs that a file asks for, and the groups that train them.

A file names environments, algorithms, seeds and settings; what has several values makes runs. Runs
of the same structure are trained by one program, seeds and numbers side by side. A run's id is a
digest of its settings but for its end, so the same run is the same in every sweep file.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mbpo_jax import config_io
from mbpo_jax.config import ENDS, Config, chosen_by, file_name, readers, unread, unread_as_set
from mbpo_jax.errors import MOST_PROBLEMS, ConfigError, first_of, shown, suggestion
from mbpo_jax.fields import MOST_ITEMS, MOST_RUNS, field_error, field_types
from mbpo_jax.files import to_plain
from mbpo_jax.presets import environment_preset
from mbpo_jax.training.group import Group, joined, structure
from mbpo_jax.training.trackers import tracker
from mbpo_jax.yaml_files import read_yaml

FIELDS = {
    "environments": list,
    "algorithms": list,
    "seeds": (int, list),
    "presets": list,
    "settings": dict,
    "grid": dict,
    "variants": list,
    "parts": list,
    "log": list,
}
"""What a sweep file holds; see docs/sweeps.md."""
WHAT = ("environments", "algorithms")
"""Without these a file or part asks for nothing."""
OF_THE_FILE = ("parts", "log")
"""What no part has of its own: `log` is who is told of the runs, and no part of what they are."""
UNLESS_SAID = {"stop_at_return": None}
"""Runs that are compared are trained to the end, unless the file says otherwise."""


def read_sweep(path: Path) -> list[Config]:
    """Return the runs that a sweep file asks for, each once, in the order of the file.

    Raises:
      ConfigError: the file cannot be read, or something in it is wrong; all of it is named.
    """
    return expand(read_yaml(path), str(path))


def expand(content: Mapping[str, Any], source: str = "sweep") -> list[Config]:
    """Return the runs that the content of a sweep file asks for.

    Args:
      content: see `FIELDS`.
      source: where it comes from, for messages.

    Raises:
      ConfigError: as `read_sweep`.
    """
    above, problems = _sound(content, source)
    parts = above.pop("parts", None) or []
    # What stands above the parts is asked for, too, if it is whole; a part adds to it.
    whole = all(content.get(name) for name in WHAT) if isinstance(content, Mapping) else False
    asked = [(source, above, content, above)] if whole or not parts else []
    for number, part in enumerate(parts, start=1):
        where = f"{source}: parts[{number}]"
        own, found = _sound(part, where, inside=True)
        problems += found
        if isinstance(part, Mapping):
            asked.append((where, _over(above, own), {**content, **part}, own))
    if sum(_number_of_runs(part) for _, part, _, _ in asked) > MOST_RUNS:
        found = f"{source}: asks for more than {MOST_RUNS:,} runs; divide it into several files"
        raise ConfigError(*first_of([found, *problems]))
    runs: dict[str, Config] = {}
    read_by_any: set[str] = set()
    expanded = True
    for where, part, given, own in asked:
        missing = [name for name in WHAT if not given.get(name)]
        problems += [f"{where}: {name} is missing; name one or more" for name in missing]
        if not all(part.get(name) for name in WHAT):
            expanded = False
            continue
        read_here: set[str] = set()
        for make in _points(part, where, read_here):
            try:
                config = make()
            except ConfigError as error:
                problems += [problem for problem in error.args if problem not in problems]
                if len(problems) > MOST_PROBLEMS:
                    raise ConfigError(*first_of(problems)) from error
                continue
            for seed in _seeds(part):
                run = dataclasses.replace(config, seed=seed)
                name = run_id(run)
                known = runs.get(name)
                if known is None or known.total_env_steps < run.total_env_steps:
                    runs[name] = run
        read_by_any |= read_here
        if own is not above:
            problems += _unread_problems(where, own, read_here)
    if expanded:  # or who reads what is not known
        problems += _unread_problems(source, above, read_by_any)
    if problems:
        raise ConfigError(*first_of(problems))
    return list(runs.values())


def _unread_problems(where: str, content: Mapping[str, Any], read: set[str]) -> list[str]:
    """Return what a file or part sets for nobody, as no algorithm of its runs reads it."""
    layers = [content.get("settings") or {}, *(content.get("variants") or [])]
    for axis, values in (content.get("grid") or {}).items():
        layers += [{axis: value} for value in (values if isinstance(values, list) else [values])]
    named: set[str] = set()
    for layer in layers:
        with contextlib.suppress(ConfigError):  # which was told already
            named |= set(config_io.paths(config_io.nested(layer)))

    def ways(path: str) -> str:
        found = chosen_by(path)
        chosen = f"set {found[0]} to {' or '.join(found[1])}, or " if found else ""
        return f"leave it out, or {chosen}add one that does (with a learned model)"

    return [
        f"{where}: {path}: none of the algorithms reads it, as it stands; {ways(path)}: "
        + ", ".join(readers(path))
        for path in sorted((named & config_io.defaults().keys()) - read)
    ]


def _points(
    part: Mapping[str, Any], source: str, read_by_some: set[str]
) -> Iterator[Callable[[], Config]]:
    """Yield for every point of a part a function that makes its configuration, of any seed.

    Settings that the run's algorithm never reads keep the value that they had, so that runs which
    differ in nothing else are the same. The others are put into `read_by_some`.
    """
    presets = part.get("presets") or []

    @functools.cache
    def preset_of(environment: str, algorithm: str) -> Config:
        preset = environment_preset(environment, *presets, algorithm=algorithm)
        if preset.env.name != environment:
            raise ConfigError(
                f"{source}: presets: {', '.join(presets)} are of an environment; name those "
                "that fit any, such as debug"
            )
        return preset

    for environment, algorithm, variant, point in itertools.product(
        part["environments"], part["algorithms"], part.get("variants") or [{}], _crossed(part)
    ):
        layers = (part.get("settings") or {}, variant, point)

        def make(environment=environment, algorithm=algorithm, layers=layers):
            changes: dict[str, Any] = {}
            for layer in layers:
                changes = _deep(changes, config_io.nested(layer))
            values = config_io.paths(changes)
            model = str(values.get("model", Config().model))
            read = {
                path: value for path, value in values.items() if not unread(algorithm, model, path)
            }
            preset = preset_of(environment, algorithm)
            own = {"algorithm": algorithm, "num_seeds": 1}

            def made(values: dict[str, Any]) -> Config:
                changes = {**UNLESS_SAID, **config_io.nested(values), **own}
                return config_io.apply(preset, changes, source)

            try:
                config = made(read)
            except ConfigError:
                read_by_some.update(read)
                raise
            left = {path for path in read if unread_as_set(config, path)}
            read_by_some.update(read.keys() - left)
            return made({p: v for p, v in read.items() if p not in left}) if left else config

        yield make


def _seeds(part: Mapping[str, Any]) -> Sequence[int]:
    seeds = part.get("seeds") or 1
    return range(seeds) if isinstance(seeds, int) else seeds


def _crossed(part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values in a part's grid."""
    grid = part.get("grid") or {}
    return (dict(zip(grid, point, strict=True)) for point in itertools.product(*_axes(part)))


def _axes(part: Mapping[str, Any]) -> list[list[Any]]:
    values = (part.get("grid") or {}).values()
    return [value if isinstance(value, list) else [value] for value in values]


def _number_of_runs(part: Mapping[str, Any]) -> int:
    """Return how many runs a part asks for, without making one."""
    axes = [part.get(name) or [] for name in WHAT]
    axes += [part.get("variants") or [{}], _seeds(part), *_axes(part)]
    return math.prod(map(len, axes))


def _over(common: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part of a sweep with what stands above all parts; settings and grids are merged."""
    merged = {**common, **part}
    above, own = (config_io.nested(x.get("settings") or {}) for x in (common, part))
    merged["settings"] = _deep(above, own)
    merged["grid"] = {**(common.get("grid") or {}), **(part.get("grid") or {})}
    return merged


def _deep(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _deep(merged[name], value) if both else value
    return merged


def _sound(content: Any, source: str, inside: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of a file or part in which nothing is wrong, and what is, in the others."""
    if not isinstance(content, Mapping):
        return {}, [
            f"{source}: {shown(content)} should be fields such as 'algorithms: [mbpo, sac]'"
        ]
    allowed = {name: kind for name, kind in FIELDS.items() if not (inside and name in OF_THE_FILE)}
    kinds = {list: "a list", dict: "fields", (int, list): "a number or a list"}
    sound, problems = {}, []
    for name, value in content.items():
        if not isinstance(name, str):
            found = [f"{source}: {shown(name)} is no name of a field"]
        elif name not in allowed:
            found = [f"{source}: {name}: no such field; {suggestion(name, allowed)}"]
        elif value is not None and not isinstance(value, allowed[name]):
            found = [f"{source}: {name}: {shown(value)} should be {kinds[allowed[name]]}"]
        elif value is not None:
            found = [f"{source}: {name}: {text}" for text in _value_problems(name, value)]
        else:
            found = []
        problems += found
        if not found:
            sound[name] = value
    return sound, problems


def _value_problems(name: str, value: Any) -> list[str]:
    """Return what is wrong with the value of a field that has the right type."""
    few = name not in ("seeds", "variants", "parts", "settings", "grid")
    if few and len(value) > MOST_ITEMS:
        return [f"{len(value)} names are too many; use up to {MOST_ITEMS}"]
    if name == "log":
        return tracker.problems(value)
    if name == "seeds" and isinstance(value, int):
        if isinstance(value, bool):
            return [f"{value} should be a number or a list"]
        return _range_problems("num_seeds", [value])
    if isinstance(value, list) and not value:
        return ["is empty; name one or more, or leave it out"] if name != "presets" else []
    kinds = {"seeds": int, "variants": Mapping, "parts": object}
    if isinstance(value, list):
        kind = kinds.get(name, str)
        wrong = [x for x in value if not isinstance(x, kind) or isinstance(x, bool)]
        problems = [f"{shown(x)} cannot stand here" for x in wrong]
        layers = [x for x in value if isinstance(x, Mapping)] if name == "variants" else []
    else:
        problems, layers = [], [value]
    if name == "seeds" and not problems:
        problems = _range_problems("seed", value)
    problems += [text for layer in layers for text in _layer_problems(layer)]
    if name in ("grid", "variants"):
        problems += [
            f"{path}: runs that differ in their end alone are one run; put it into settings"
            for layer in layers
            for path in ENDS
            if path in layer
        ]
    if name == "grid":
        problems += [f"{path}: has no value" for path in value if value[path] == []]
        problems += [
            f"{path}: a grid has dotted names, each with a list; write {path}.{name}: [...]"
            for path in value
            for name in (value[path] if isinstance(value[path], Mapping) else ())
            if f"{path}.{name}" in config_io.defaults()
        ]
    return problems


def _range_problems(setting: str, values: Sequence[int]) -> list[str]:
    """Return what is wrong with numbers that become a setting."""
    found = (field_error("", value, field_types(Config)[setting]) for value in values)
    return [text.removeprefix(": ") for text in found if text]


def _layer_problems(layer: Mapping[Any, Any]) -> list[str]:
    """Return what is wrong with the names of settings, which may be nested."""
    own = {"seed": "seeds", "num_seeds": "seeds", "algorithm": "algorithms"}
    own |= {"env.name": "environments"}
    problems, names = [], list(layer)
    if isinstance(layer.get("env"), Mapping):
        names += [f"env.{name}" for name in layer["env"]]
    for name in names:
        if not isinstance(name, str):
            problems.append(f"{shown(name)} is no name of a setting")
        elif name in own:
            problems.append(f"{name}: use {own[name]} instead")
    return problems


def varied_fields(runs: Sequence[Config]) -> dict[tuple[str, str], list[str]]:
    """Return for each environment and algorithm the settings, but seeds, in which its runs differ.

    Args:
      runs: of a sweep.
    """
    alike: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        alike.setdefault((run.env.name, run.algorithm), []).append(config_io.flatten(run))
    return {
        kind: [
            path
            for path in members[0]
            if path not in ("seed", "num_seeds")
            and len({str(values[path]) for values in members}) > 1
        ]
        for kind, members in alike.items()
    }


def run_id(config: Config) -> str:
    """Return a digest of what a run is, however long it is trained.

    Settings at their defaults are left out, so that one more setting makes no other runs.
    """
    own, usual = config_io.flatten(config), config_io.defaults()
    ignored = ("num_seeds", *ENDS)
    one = {k: v for k, v in own.items() if k not in ignored and (k == "seed" or v != usual[k])}
    return _digest(json.dumps(to_plain(one), sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def group_name(group: Group) -> str:
    """Return a name that tells what is trained and, by a digest of the runs, which runs."""
    config = group.config
    digest = _digest(" ".join(sorted(run_id(run) for run in group.runs)))
    return f"{file_name(config.env.name)}-{file_name(config.algorithm)}-{digest}"


def make_groups(
    runs: Sequence[Config], most_runs: Callable[[Group], int] = lambda group: len(group.runs)
) -> list[Group]:
    """Put runs of one structure together, in groups that fit a device.

    Args:
      runs: in any order.
      most_runs: how many of a group's runs fit together.
    """
    alike: dict[Any, list[Config]] = {}
    for run in runs:
        alike.setdefault(structure(run), []).append(run)
    groups = []
    for members in alike.values():
        size = max(most_runs(joined(members)), 1)
        # As even as can be: groups of one size, and of equal room, share a compiled program.
        number = -(-len(members) // size)
        size = -(-len(members) // number)
        groups += [joined(members[i : i + size]) for i in range(0, len(members), size)]
    return groups
