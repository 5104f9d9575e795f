"""Help for `train` on two pages: what the chosen algorithm reads, a line for each setting.

Written out, as `--help-all` does, the settings of all algorithms fill more than 500 lines.
"""

import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from mbpo_jax.cli.common import PROGRAM
from mbpo_jax.config import ALGORITHMS, Config, read_settings

HELP = ("-h", "--help")
ALL = "--help-all"
"""Asks for every setting of every algorithm, and all that is to be said of it."""

MOST_OF_VALUE = 15
"""Columns for a value; a longer one is cut."""


class Option(NamedTuple):
    """What is told of an option.

    Attributes:
      name: as it is written.
      value: what it is if nothing is said.
      text: what it does.
    """

    name: str
    value: str
    text: str


def summary(verb: type) -> str:
    """Return the first line of a verb's documentation."""
    return str(inspect.getdoc(verb)).partition("\n")[0]


def options(settings: Any, prefix: str = "", only: Iterable[str] | None = None) -> list[Option]:
    """Return the options that set the fields of a dataclass; nested dataclasses have their own.

    Args:
      settings: an instance, whose values are told.
      prefix: what stands before the names, such as `sac.`.
      only: names of the fields that are told of; all if None.
    """
    info = StructTypeInfo.make(type(settings), settings, in_union_context=False)
    spec = ConstructorRegistry.get_struct_spec(info)
    assert isinstance(spec, StructConstructorSpec)
    found = []
    for field in spec.fields:
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value) or (only is not None and field.name not in only):
            continue
        text = field.helptext() if callable(field.helptext) else field.helptext
        negation = "[no-]" if isinstance(value, bool) else ""
        name = f"--{prefix}{negation}{field.name}".replace("_", "-")
        found.append(Option(name, _shown(value), " ".join((text or "").split())))
    return found


def show_train(verb: Any, config: Config) -> None:
    """Print the help for `train`.

    Args:
      verb: the verb, with what its own options are if nothing is said.
      config: what would be trained.
    """
    heading, _, more = str(inspect.getdoc(verb)).partition("\n\n")
    print(f"usage: {PROGRAM} train ENV [OPTIONS]\n\n{heading}\n")
    print(textwrap.fill(more, _width()))
    print("\nAlgorithms:")
    _print_table(Option(name, "", record.summary) for name, record in ALGORITHMS.items())
    print("\nOptions:")
    # The environment and the settings are no options of these names.
    names = {field.name for field in dataclasses.fields(verb)} - {"environment", "settings"}
    _print_table(options(verb, only=names), sentence=True)
    print(f"\nThe run, here and below with the values of {config.algorithm}:")
    # The environment is the first argument, so it is no option as well.
    paths = [path for path in read_settings(config) if path != "env.name"]
    _print_table(options(config, only=paths), sentence=True)
    for field in dataclasses.fields(config):
        group, prefix = getattr(config, field.name), f"{field.name}."
        only = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
        if only and dataclasses.is_dataclass(group):
            about = str(inspect.getdoc(group)).removesuffix(".")
            print("\n" + textwrap.fill(f"{about}:", _width()))
            _print_table(options(group, prefix, only))
    print(
        f"\n{ALL} has whole sentences, and what others or other choices read;\n"
        f"`{PROGRAM} train ENV --algorithm NAME --help` has what it reads, on ENV."
    )


def _shown(value: Any) -> str:
    """Return a value as it is given on the command line."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _print_table(rows: Iterable[Option], sentence: bool = False) -> None:
    """Print options in columns, with the first sentence of their texts or as much as a line has."""
    rows = list(rows)
    names = max(len(row.name) for row in rows)
    values = min(MOST_OF_VALUE, max(len(row.value) for row in rows))
    for name, value, text in rows:
        value = value if len(value) <= values else f"{value[: values - 1]}…"
        start = f"  {name:<{names}}  {f'{value:<{values}}  ' if values else ''}"
        if sentence:
            text, indent = text.partition(". ")[0].removesuffix(".") + ".", " " * len(start)
            print(textwrap.fill(text, _width(), initial_indent=start, subsequent_indent=indent))
        else:
            print(start + textwrap.shorten(text, _width() - len(start), placeholder=" …"))


def _width() -> int:
    """Return the columns that are used: the terminal's, but no longer lines than can be read."""
    return max(60, min(shutil.get_terminal_size().columns, 120))
