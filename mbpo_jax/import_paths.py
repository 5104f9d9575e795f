"""Functions of one's own, by import path: `package.module:function`."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mbpo_jax.errors import ConfigError, shown, suggestion


def is_import_path(name: str) -> bool:
    """Say whether a name is an import path and not one that is known here; these have no colon."""
    return ":" in name


def name_problem(name: str, known: Iterable[str]) -> str | None:
    """Return what is wrong with a name that is neither known nor an import path, or None."""
    known = list(known)
    if is_import_path(name) or name in known:
        return None
    return f"{shown(name)} is not known (one of your own would be module:function); " + suggestion(
        name, known
    )


def load_function(path: str, field: str, *arguments: str) -> Callable[..., Any]:
    """Return the function that an import path names.

    The module is looked for in the working directory and then where Python looks, as `python -m`
    does.

    Args:
      path: `package.module:function`.
      field: the setting that holds the path, for messages.
      arguments: names of what the function will be given, in order.

    Raises:
      ConfigError: there is no such function, or it does not take these arguments.
    """
    module_name, _, name = path.partition(":")
    if module_name.endswith(".py"):
        raise ConfigError(f"{field}: {shown(path)} names a file; write it without .py")
    if not (name.isidentifier() and all(map(str.isidentifier, module_name.split(".")))):
        raise ConfigError(
            f"{field}: {shown(path)} is no import path; write it as in package.module:function"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except SyntaxError as error:
        raise ConfigError(f"{field}: {error.filename}:{error.lineno}: {error.msg}") from error
    except ImportError as error:
        raise ConfigError(
            f"{field}: cannot import {module_name!r}: {error}; give the command in the folder "
            "that holds it, or put that folder on PYTHONPATH"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [found for found, _ in inspect.getmembers(module, inspect.isfunction)]
        functions = [found for found in functions if not found.startswith("_")]
        advice = suggestion(name, functions) if functions else "it has none"
        raise ConfigError(f"{field}: {module_name} has no function {name!r}; {advice}")
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError) as error:  # the latter where Python knows no signature
        raise ConfigError(
            f"{field}: {path} does not fit ({error}); begin it with "
            f"def {name}({', '.join(arguments)}):"
        ) from error
    return function
