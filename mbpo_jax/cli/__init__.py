"""The command line: its verbs, and what is said when something is wrong.

Nothing here imports JAX before the arguments are parsed: help and mistakes are answered at once.
"""

import contextlib
import dataclasses
import functools
import operator
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import subcommand
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from mbpo_jax import exit_codes
from mbpo_jax.cli import help
from mbpo_jax.cli.common import PROGRAM
from mbpo_jax.cli.sweep import Report, Sweep
from mbpo_jax.cli.train import Layers, Train, layers_of, train_help
from mbpo_jax.cli.variance import Variance, variance_help
from mbpo_jax.cli.verbs import Doctor, Envs, Eval, Export, Presets, Render
from mbpo_jax.config import CONFIG_CLASSES, MEMORY_FIELDS, EnvConfig
from mbpo_jax.errors import ConfigError, DiskError, UserError, is_of_a_disk

TITLE = "Model-accelerated reinforcement learning in JAX."

VERBS: dict[str, type] = {
    "train": Train,
    "eval": Eval,
    "render": Render,
    "export": Export,
    "sweep": Sweep,
    "report": Report,
    "variance": Variance,
    "envs": Envs,
    "presets": Presets,
    "doctor": Doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 2 for bad input, else what the verb returns.

    Args:
      argv: the arguments without the program's name; those of the process if None.
    """
    code = _run(sys.argv[1:] if argv is None else argv)
    try:
        sys.stdout.flush()  # what has become of our output shows here, and not when Python ends
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or _output_lost(error)
    return code


def _run(argv: Sequence[str]) -> int:
    """Run a command line, and say what was wrong."""
    command = None
    try:
        layers = layers_of(argv)
        command = _parse(argv, layers)
        return _carry_out(command, layers, argv)
    except SystemExit as end:  # tyro has printed help, or what is wrong with the options
        return end.code if isinstance(end.code, int) else exit_codes.BAD_INPUT
    except DiskError as error:
        return _report(error.told(getattr(command, "ELSEWHERE", "")))
    except UserError as error:
        return _report(*error.args)
    except OSError as error:
        if error.filename:
            return _report(f"{error.filename}: {error.strerror}")
        return _output_lost(error) if is_of_a_disk(error) else _report(str(error))
    except KeyboardInterrupt:
        return exit_codes.KILLED_BY_CTRL_C
    except RuntimeError as error:  # XLA's way to say that a device's memory is full
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _report(f"the device ran out of memory; lower num_seeds, {MEMORY_FIELDS}")


def _carry_out(command: Any, layers: Layers, argv: Sequence[str]) -> int:
    if isinstance(command, Train):
        return command.run(layers, argv)
    if isinstance(command, Variance):
        return command.run_study(argv)
    return command.run()


def _parse(argv: Sequence[str], layers: Layers) -> Any:
    """Have tyro read the arguments of a verb by itself, so that it speaks of no other.

    Raises:
      SystemExit: help was asked for and is printed, or so is what is wrong with the arguments.
      ConfigError: an option has another name now.
    """
    constructors = ConstructorRegistry()
    constructors.struct_rule(_unchecked)
    verb, *arguments = argv or [""]
    if verb not in VERBS:  # tyro lists them, or says that there is none of that name
        every = (
            Annotated[cls, subcommand(name, description=help.summary(cls))]
            for name, cls in VERBS.items()
        )
        verbs: Any = functools.reduce(operator.or_, every)
        return tyro.cli(
            verbs, prog=PROGRAM, description=TITLE, args=list(argv), registry=constructors
        )
    own: dict[str, Any] = {}
    if verb == "train":
        train = Train(environment=tyro.MISSING, settings=layers.config)
        if set(help.HELP) & set(arguments):
            help.show_train(train, layers.helped)
            raise SystemExit(0)
        arguments = ["--help" if argument == help.ALL else argument for argument in arguments]
        own = {"default": train, "description": train_help()}
    elif verb == "variance":
        if any(argument.partition("=")[0] == "--system" for argument in arguments):
            raise ConfigError("--system is called --model: learned, oracle (once true) or both")
        own = {"description": variance_help()}
    return tyro.cli(
        VERBS[verb], prog=f"{PROGRAM} {verb}", args=arguments, registry=constructors, **own
    )


def _unchecked(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Have tyro collect the fields of a configuration in dictionaries instead of dataclasses.

    A dataclass raises on its first wrong number, and then the next dataclass is never reached.
    """
    if info.type not in CONFIG_CLASSES:
        return None
    # A subclass is not among the classes above, so tyro's own rule describes its fields.
    same = type(info.type.__name__, (info.type,), {"__doc__": info.type.__doc__})
    spec = ConstructorRegistry.get_struct_spec(dataclasses.replace(info, type=same))
    assert isinstance(spec, StructConstructorSpec)

    def collect(**values: Any) -> dict[str, Any]:
        return values

    collect.__doc__ = info.type.__doc__  # the heading of the group in the help
    # The environment is the first argument, so it is no option as well.
    fields = tuple(f for f in spec.fields if (info.type, f.name) != (EnvConfig, "name"))
    return StructConstructorSpec(collect, fields)


def _output_lost(error: OSError) -> int:
    """Say that what we print does not arrive; all else that is written has a name."""
    if isinstance(error, BrokenPipeError):  # whoever read it has seen enough, as `| head` does
        return exit_codes.BROKEN_PIPE
    return _report(str(DiskError(f"cannot write the output: {error.strerror}", error.errno or 0)))


def _report(*problems: str) -> int:
    for problem in problems:
        with contextlib.suppress(OSError):  # then it can be told nowhere, and the code has to do
            print(f"{PROGRAM}: {problem}", file=sys.stderr)
    return exit_codes.BAD_INPUT
