"""The command line: verbs, and how presets, files and options make a configuration.

Nothing here imports JAX before the arguments are parsed: help and mistakes are answered at once.
"""

import argparse
import dataclasses
import inspect
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro
from tyro.conf import Positional, UseAppendAction, arg, subcommand
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from mbpo_jax.config import (
    CONFIG_CLASSES,
    ESTIMATOR_SUMMARIES,
    MEMORY_FIELDS,
    SUMMARIES,
    Config,
    EnvConfig,
    EstimatorConfig,
    StudyConfig,
)
from mbpo_jax.errors import ConfigError, UserError
from mbpo_jax.presets import PRESETS, environment_preset, preset

PROGRAM = "mbpo-jax"
EXIT_BAD_INPUT = 2
EXIT_KILLED_BY_CTRL_C = 130
EXIT_BROKEN_PIPE = 141


@dataclasses.dataclass(frozen=True)
class Train:
    """Train on an environment, or resume: the same command goes on where it stopped.

    An environment's preset comes first, then --preset, then --config, then the other options.
    """

    environment: Annotated[Positional[str], arg(metavar="ENV")]
    """Environment, one of `mbpo-jax envs`; the first argument."""
    settings: Annotated[Config, arg(name="")]
    preset: UseAppendAction[tuple[str, ...]] = ()
    """Preset to put over the environment's own, one of `mbpo-jax presets`."""
    config: UseAppendAction[tuple[Path, ...]] = ()
    """YAML file of settings to put over the presets."""
    run_dir: Path | None = None
    """Directory for everything the run writes; below runs/, named after the run, if unset."""
    dry_run: bool = False
    """Print the settings, sizes and memory, and train nothing."""
    compilation_cache: bool = True
    """Keep compiled programs on disk, so that the next start is quicker."""

    def run(self, base: Config, argv: Sequence[str]) -> int:
        """Make the configuration, then train or print what would be trained."""
        from mbpo_jax import config_io

        # Parsed without the checks of the dataclasses (see `_unchecked`): they follow here, all.
        values: Any = self.settings
        config = config_io.apply(base, values, "command line")
        run_dir = self.run_dir or default_run_dir(config, self.preset)
        _set_up_compilation_cache(self.compilation_cache)
        from mbpo_jax.training import driver, plan

        if self.dry_run:
            plan.dry_run(config, run_dir)
            return 0
        return driver.train(config, run_dir, [PROGRAM, *argv])


@dataclasses.dataclass(frozen=True)
class Eval:
    """Play episodes with the trained policies of a run directory and print their returns."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """Directory that `train` wrote."""
    episodes: int = 10
    """Episodes for each run."""
    seed: int = 0
    """Seed of the initial states."""

    def run(self) -> int:
        """Evaluate, with the cache of compiled programs."""
        if self.episodes < 1:
            raise ConfigError(f"--episodes: {self.episodes} is too small; use a value >= 1")
        _set_up_compilation_cache(True)
        from mbpo_jax.training import playback

        return playback.evaluate_run(self.run_dir, self.episodes, self.seed)


@dataclasses.dataclass(frozen=True)
class Render:
    """Draw an episode of a trained policy: rollout.html and rollout.webp, or episode.png."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """Directory that `train` wrote."""
    index: Annotated[int, arg(name="run")] = 0
    """Run to draw, counted from 0; more than one there is only after --num-seeds."""

    def run(self) -> int:
        """Render, with the cache of compiled programs."""
        _set_up_compilation_cache(True)
        from mbpo_jax.training import playback

        return playback.render_run(self.run_dir, self.index)


@dataclasses.dataclass(frozen=True)
class Variance:
    """Compare gradient estimators on a problem, or on what a run has learned.

    Prints a table and writes rows, figures and report.html; docs/gradients.md explains it all.
    """

    estimators: str = "rp,lr"
    """Names from the list above with commas between them, or all that suit the problem."""
    problem: str | None = None
    """Problem to measure on, such as lq, chaotic_rnn or pendulum; or give --run."""
    run: Path | None = None
    """Directory that `train` wrote: its policy and critics, in its ensemble."""
    index: int = 0
    """Run in that directory, counted from 0; more than one there is only after --num-seeds."""
    system: Literal["learned", "true", "both"] = "learned"
    """With --run: measure in the ensemble, or in the true system; or in the ensemble against the
    true system, which tells the model's share in the error. The latter two start where the policy
    goes now, as replay holds no simulator states; learned starts from replay."""
    horizons: str = "1,2,5,10,20"
    """Steps of trajectories, with commas between them."""
    batch_sizes: str = "16"
    """Trajectories of an estimate, with commas between them."""
    batches: int = StudyConfig.batches
    """Independent estimates."""
    reference_batches: int = StudyConfig.reference_batches
    """Independent estimates for the reference, where the gradient is not known exactly."""
    reference_batch_size: int = StudyConfig.reference_batch_size
    """Trajectories of each of them."""
    beta: float | None = None
    """chaotic_rnn: its gain."""
    frequency: float | None = None
    """cosine: its frequency."""
    width: float | None = None
    """heaviside: of the step."""
    stiffness: float | None = None
    """pushing: of the contact."""
    critic_error: float | None = None
    """lq: what the critic's quadratic form has too much."""
    seed: int = 0
    """Of all noise."""
    precision: Literal["float64", "float32"] = "float64"
    """Of a problem; a run has the precision it was trained in."""
    out: Path | None = None
    """Directory for the results; below gradients/, or in the run's own directory, if unset."""
    settings: Annotated[EstimatorConfig, arg(name="estimator")] = dataclasses.field(
        default_factory=EstimatorConfig
    )

    def run_study(self, argv: Sequence[str]) -> int:
        """Check everything that can be checked without JAX, then measure."""
        if (self.problem is None) == (self.run is None):
            raise ConfigError("give one of --problem NAME and --run RUN_DIR")
        names = ("beta", "frequency", "width", "stiffness", "critic_error")
        given = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        if self.run is None and (self.index, self.system) != (0, "learned"):
            raise ConfigError("--index and --system belong to --run; leave them out")
        if self.run is not None and (given or self.precision != "float64"):
            raise ConfigError("--precision and settings of problems belong to --problem, not --run")
        values: Any = self.settings
        settings = EstimatorConfig(**values) if isinstance(values, dict) else self.settings
        config = StudyConfig(
            estimators=cast(Any, tuple(name.strip() for name in self.estimators.split(","))),
            horizons=_whole_numbers("horizons", self.horizons),
            batch_sizes=_whole_numbers("batch_sizes", self.batch_sizes),
            batches=self.batches,
            reference_batches=self.reference_batches,
            reference_batch_size=self.reference_batch_size,
            seed=self.seed,
        )
        import jax

        if self.run is None and self.precision == "float64":
            jax.config.update("jax_enable_x64", True)
        _set_up_compilation_cache(True)
        from mbpo_jax.training import laboratory

        command = shlex.join([PROGRAM, *argv])
        if self.run is not None:
            return laboratory.measure_run(
                self.run, self.index, self.system, config, settings, self.out, command
            )
        return laboratory.measure_problem(
            str(self.problem), given, config, settings, self.out, command
        )


def _whole_numbers(name: str, text: str) -> tuple[int, ...]:
    """Read whole numbers with commas between them."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{name}: {text!r} is no list of whole numbers such as 1,2,5") from error


@dataclasses.dataclass(frozen=True)
class Envs:
    """List the environments with their sizes and physics backends."""

    def run(self) -> int:
        """Print a table."""
        from mbpo_jax.envs import ENVIRONMENTS, environment_names

        print(f"{'environment':<26}{'observation':>11}{'action':>8}  backends")
        for name in environment_names():
            info = ENVIRONMENTS[name]
            sizes = f"{info.observation_size:>11}{info.action_size:>8}"
            print(f"{name:<26}{sizes}  {', '.join(info.backends)}")
        return 0


@dataclasses.dataclass(frozen=True)
class Presets:
    """List the presets, or print the settings that one or several of them make."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME")] = ()
    """Presets to put over each other, in this order."""

    def run(self) -> int:
        """Print a list, or YAML."""
        if self.names:
            from mbpo_jax import config_io

            print(config_io.dump_yaml(preset(*self.names)), end="")
            return 0
        for name, (summary, _) in PRESETS.items():
            print(f"{name:<26}{summary}")
        return 0


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Look at this machine and say what is missing and how to mend it."""

    def run(self) -> int:
        """Print what was found."""
        from mbpo_jax.training import doctor

        return doctor.examine()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 2 for bad input, else what the verb returns.

    Args:
      argv: the arguments without the program's name; those of the process if None.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        base = layered_config(argv)
        command = _parse(argv, base)
        code = _carry_out(command, base, argv)
        sys.stdout.flush()  # a reader that has gone is noticed here, and not when Python ends
        return code
    except SystemExit as end:  # tyro has printed help, or what is wrong with the options
        return end.code if isinstance(end.code, int) else EXIT_BAD_INPUT
    except UserError as error:
        return _report(*error.args)
    except BrokenPipeError:  # whoever read our output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as error:
        return _report(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        return EXIT_KILLED_BY_CTRL_C
    except RuntimeError as error:  # XLA's way to say that a device's memory is full
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _report(f"the device ran out of memory; lower num_seeds, {MEMORY_FIELDS}")


def _carry_out(command: Any, base: Config, argv: Sequence[str]) -> int:
    if isinstance(command, Train):
        return command.run(base, argv)
    if isinstance(command, Variance):
        return command.run_study(argv)
    return command.run()


def layered_config(argv: Sequence[str]) -> Config:
    """Return what presets and files make of the defaults, before the other options of `train`.

    This has to be known before the options are parsed, whose defaults it gives.

    Raises:
      ConfigError: the environment, a preset or something in a file is wrong.
    """
    if not argv or argv[0] != "train" or set(argv[1:2]) <= {"-h", "--help"}:
        return Config()
    if argv[1].startswith("-"):
        raise ConfigError(f"the environment comes first: {PROGRAM} train ENV {argv[1]} ...")
    environment = argv[1]
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} train", add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", action="append", default=[])
    parser.add_argument("--config", action="append", default=[], type=Path)
    layers, _ = parser.parse_known_args(argv[2:])
    config = environment_preset(environment, *layers.preset)
    for path in layers.config:
        from mbpo_jax import config_io

        config = config_io.apply(config, config_io.read_yaml(path), str(path))
    if config.env.name != environment:
        raise ConfigError(
            f"env.name: the command says {environment!r}, a preset or file {config.env.name!r}; "
            "name the same environment in both"
        )
    return config


def default_run_dir(config: Config, presets: Sequence[str] = ()) -> Path:
    """Return where a run goes if the user does not say: a name for what is often varied."""
    usual = (EnvConfig().backend, "analytic")
    varied = [] if config.env.backend in usual else [config.env.backend]
    varied += [config.algorithm, *([config.model] if config.model == "oracle" else [])]
    last = config.seed + config.num_seeds - 1
    seeds = str(config.seed) if config.num_seeds == 1 else f"{config.seed}-{last}"
    return Path("runs", "-".join([config.env.name, *varied, *presets, seeds]))


def train_help() -> str:
    """Return the description of `train`, with a line for each algorithm."""
    algorithms = (f"- {name}: {summary}" for name, summary in SUMMARIES.items())
    return "\n".join([str(inspect.getdoc(Train)), "\nAlgorithms:\n", *algorithms])


def variance_help() -> str:
    """Return the description of `variance`, with a line for each estimator."""
    table = ESTIMATOR_SUMMARIES.items()
    estimators = (f"- {name}: {summary} ({source})" for name, (summary, source) in table)
    return "\n".join([str(inspect.getdoc(Variance)), "\nEstimators:\n", *estimators])


def _parse(argv: Sequence[str], base: Config) -> Any:
    train = Train(environment=tyro.MISSING, settings=base)
    verbs = (
        Annotated[Train, subcommand("train", default=train, description=train_help())]
        | Annotated[Eval, subcommand("eval")]
        | Annotated[Render, subcommand("render")]
        | Annotated[Variance, subcommand("variance", description=variance_help())]
        | Annotated[Envs, subcommand("envs")]
        | Annotated[Presets, subcommand("presets")]
        | Annotated[Doctor, subcommand("doctor")]
    )
    registry = ConstructorRegistry()
    registry.struct_rule(_unchecked)
    description = "Model-accelerated reinforcement learning in JAX."
    return tyro.cli(
        verbs, prog=PROGRAM, description=description, args=list(argv), registry=registry
    )


def _unchecked(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Have tyro collect the fields of a configuration in dictionaries instead of dataclasses.

    A dataclass raises on its first wrong number, and then the next dataclass is never reached.
    """
    if info.type not in (*CONFIG_CLASSES, EstimatorConfig):
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


def _set_up_compilation_cache(enabled: bool) -> None:
    import jax

    from mbpo_jax.training import devices

    jax.config.update("jax_enable_compilation_cache", enabled)
    if enabled:
        devices.use_compilation_cache(devices.default_cache_directory())


def _report(*problems: str) -> int:
    for problem in problems:
        print(f"{PROGRAM}: {problem}", file=sys.stderr)
    return EXIT_BAD_INPUT
