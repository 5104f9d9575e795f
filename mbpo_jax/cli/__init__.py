"""The command line: its verbs, and what is said when something is wrong.

Nothing here imports JAX before the arguments are parsed: help and mistakes are answered at once.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import subcommand
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from mbpo_jax import exit_codes
from mbpo_jax.cli.common import PROGRAM
from mbpo_jax.cli.sweep import Report, Sweep
from mbpo_jax.cli.train import Layers, Train, layers_of, train_help
from mbpo_jax.cli.variance import Variance, variance_help
from mbpo_jax.cli.verbs import Doctor, Envs, Eval, Export, Presets, Render
from mbpo_jax.config import CONFIG_CLASSES, MEMORY_FIELDS, EnvConfig
from mbpo_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 2 for bad input, else what the verb returns.

    Args:
      argv: the arguments without the program's name; those of the process if None.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        layers = layers_of(argv)
        command = _parse(argv, layers)
        code = _carry_out(command, layers, argv)
        sys.stdout.flush()  # a reader that has gone is noticed here, and not when Python ends
        return code
    except SystemExit as end:  # tyro has printed help, or what is wrong with the options
        return end.code if isinstance(end.code, int) else exit_codes.BAD_INPUT
    except UserError as error:
        return _report(*error.args)
    except BrokenPipeError:  # whoever read our output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.BROKEN_PIPE
    except OSError as error:
        return _report(f"{error.filename}: {error.strerror}" if error.filename else str(error))
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
    train = Train(environment=tyro.MISSING, settings=layers.config)
    verbs = (
        Annotated[Train, subcommand("train", default=train, description=train_help())]
        | Annotated[Eval, subcommand("eval")]
        | Annotated[Render, subcommand("render")]
        | Annotated[Export, subcommand("export")]
        | Annotated[Sweep, subcommand("sweep")]
        | Annotated[Report, subcommand("report")]
        | Annotated[Variance, subcommand("variance", description=variance_help())]
        | Annotated[Envs, subcommand("envs")]
        | Annotated[Presets, subcommand("presets")]
        | Annotated[Doctor, subcommand("doctor")]
    )
    constructors = ConstructorRegistry()
    constructors.struct_rule(_unchecked)
    description = "Model-accelerated reinforcement learning in JAX."
    return tyro.cli(
        verbs, prog=PROGRAM, description=description, args=list(argv), registry=constructors
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


def _report(*problems: str) -> int:
    for problem in problems:
        print(f"{PROGRAM}: {problem}", file=sys.stderr)
    return exit_codes.BAD_INPUT
