"""Configurations and data from outside: layers, what is wrong with them, differences.

The rules stand in `config`; `pydantic` applies them to data from outside and finds every mistake at
once instead of the first.
"""

import copy
import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mbpo_jax.config import Config
from mbpo_jax.config.reading import defaults, flatten
from mbpo_jax.errors import MOST_PROBLEMS, MOST_SHOWN, ConfigError, first_of, shown, suggestion
from mbpo_jax.yaml_files import to_yaml


def apply(base: Config, changes: dict[str, Any], source: str) -> Config:
    """Return a configuration changed by data from outside.

    Args:
      base: the layers below.
      changes: values by field name, nested as `Config` is.
      source: where they come from, for messages.

    Raises:
      ConfigError: fields are unknown, values have the wrong type or range, or do not go together;
        one problem each, and all of them unless they are many.
    """
    values, problems = _merged(base, changes), []
    wrong: set[str] = set()
    config: Config | None = None
    while config is None:
        try:
            config = _adapter().validate_python(values, extra="forbid")
        except ValidationError as error:
            details = error.errors(include_url=False)
            # What concerns a value that was refused already says nothing new.
            found = [
                text for each in details[: MOST_PROBLEMS + 1] for text in _problems(dict(each))
            ]
            problems += [text for text in found if not wrong & set(re.findall(r"\w+", text))]
            # Rules between fields are looked at once every field is right, so the wrong ones are
            # put back; () is where the outermost rules stand, behind which nothing is hidden.
            if any(not each["loc"] for each in details):
                break
            before = copy.deepcopy(values)
            wrong |= {_put_back(values, base, each["loc"]) for each in details}
            if values == before:
                break
    if config is None or problems:
        raise ConfigError(*(f"{source}: {problem}" for problem in first_of(problems)))
    return config


def _put_back(values: dict[Any, Any], base: Any, place: Sequence[str | int]) -> str:
    """Give what stands at a place, or else the group it is in, its former value; return its name.

    A field that there is not is left out.
    """
    name, deeper = str(place[0]), place[1:]
    if name not in {field.name for field in dataclasses.fields(base)}:
        known = [name] if name in values else [key for key in values if str(key) == name]
        for key in known:
            del values[key]
    elif deeper and isinstance(values[name], dict):
        return _put_back(values[name], getattr(base, name), deeper)
    else:
        values[name] = getattr(base, name)
    return name


def is_complete(content: dict[str, Any]) -> bool:
    """Say whether data from outside names every group of settings, as `dump_yaml` does."""
    groups = {name for name, value in vars(Config()).items() if dataclasses.is_dataclass(value)}
    return groups <= content.keys()


def paths(changes: dict[str, Any], below: Any = None, prefix: str = "") -> dict[str, Any]:
    """Return values nested as `Config` is by dotted path; what stands in no group stays whole."""
    below, found = below or Config(), {}
    for name, value in changes.items():
        deeper = getattr(below, str(name), None)
        if dataclasses.is_dataclass(deeper) and isinstance(value, dict):
            found |= paths(value, deeper, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def dump_yaml(config: Config) -> str:
    """Write a configuration as YAML, complete; reading it gives an equal configuration."""
    return to_yaml(_adapter().dump_python(config, mode="json"))


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Return by dotted path the values in which two configurations differ, the old one first."""
    before, after = flatten(old), flatten(new)
    return {path: (before[path], after[path]) for path in before if before[path] != after[path]}


def diff_configs(old: Config, new: Config) -> list[str]:
    """Return a line `path: old -> new` for every field in which two configurations differ."""
    return [f"{path}: {was} -> {now}" for path, (was, now) in differences(old, new).items()]


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return values by dotted path as values nested as `Config` is; nested ones may stay so.

    Raises:
      ConfigError: a path goes through one that has a value itself.
    """
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *sections, name = path.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigError(
                    f"{part}: {shown(section)} and {path} exclude each other; leave one"
                )
        if isinstance(value, dict):
            known = section.get(name)
            # A copy, because further paths may be put into it.
            section[name] = {**(known if isinstance(known, dict) else {}), **copy.deepcopy(value)}
        else:
            section[name] = value
    return tree


@functools.cache
def _adapter() -> TypeAdapter[Config]:
    return TypeAdapter(Config)


def _merged(base: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `base` with the changes put in, as a dictionary where they go deeper."""
    values = vars(base).copy()
    for name, value in changes.items():
        below = values.get(name)
        deeper = dataclasses.is_dataclass(below) and isinstance(value, dict)
        values[name] = _merged(below, value) if deeper else value
    return values


def _problems(details: dict[str, Any]) -> list[str]:
    """Turn an error of pydantic into problems that name the field and say what to write."""
    path = ".".join(map(str, details["loc"]))
    kind, value = details["type"], details["input"]
    if kind in ("unexpected_keyword_argument", "invalid_key"):
        return [f"{path}: no such field; {_field_advice(*map(str, details['loc']))}"]
    if kind == "value_error":  # from a rule between fields, which knows the names below this path
        prefix = f"{path}." if path else ""
        return [prefix + problem for problem in details["ctx"]["error"].args]
    if kind == "dataclass_type":
        return [
            f"{path}: {shown(value)} should be fields, one in a line and indented below '{path}:'"
        ]
    if kind == "tuple_type":
        pairs = value.items() if isinstance(value, dict) else ()
        items = [f"{name}={json.dumps(each)}" for name, each in pairs] or [value]
        advice = json.dumps(items)
        advice = advice if len(advice) <= 2 * MOST_SHOWN else "its values in brackets, as in [1, 2]"
        return [f"{path}: {shown(value)} should be a list; write {advice}"]
    return [f"{path}: {shown(value)} {details['msg'].removeprefix('Input ')}"]


def _field_advice(*path: str) -> str:
    """Point to fields of that name in other places, or else to the nearest names in this place."""
    whole, (*place, name) = ".".join(path), path
    name = _last(name)
    # A dotted name says itself where it belongs.
    found = [whole] if whole in defaults() else [p for p in defaults() if _last(p) == name]
    found = [known.rpartition(".")[0] for known in found]
    if found:
        places = [f"below '{group}:'" if group else "at the top" for group in found]
        return f"write '{name}:' {' or '.join(places)}"
    return suggestion(name, vars(functools.reduce(getattr, place, Config())))


def _last(path: str) -> str:
    return path.rpartition(".")[2]
