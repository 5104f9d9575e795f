"""The verb `train`, and how presets, files and options make its configuration."""

import argparse
import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from tyro.conf import Positional, UseAppendAction, arg

from mbpo_jax.cli import help
from mbpo_jax.cli.common import (
    PROGRAM,
    FigureFormat,
    Listed,
    listed,
    set_up_compilation_cache,
)
from mbpo_jax.config import ALGORITHMS, Config, refuse_unread
from mbpo_jax.errors import ConfigError, shown
from mbpo_jax.exit_codes import OF_OUTCOME
from mbpo_jax.presets import environment_preset, preset


@dataclasses.dataclass(frozen=True)
class Train:
    """Train on an environment, or resume: the same command goes on where it stopped.

    An environment's preset comes first, then that of the algorithm if it has one, then --preset,
    then --config, then the other options.
    """

    ELSEWHERE: ClassVar = "choose another --run-dir (a copy of this one goes on there)"

    environment: Annotated[Positional[str], arg(metavar="ENV")]
    """Environment, one of `mbpo-jax envs`, or module:function for one of your own; comes first."""
    settings: Annotated[Config, arg(name="")]
    preset: UseAppendAction[tuple[str, ...]] = ()
    """Preset to put over the environment's own, one of `mbpo-jax presets`."""
    config: UseAppendAction[tuple[Path, ...]] = ()
    """YAML file of settings to put over the presets."""
    run_dir: Path | None = None
    """Directory for everything the run writes; below runs/, named after the run, if unset."""
    init_from: Path | None = None
    """Run directory with whose networks and model a new run begins. They are of the same shapes,
    and of one seed or as many. A run that is resumed goes on with its own."""
    figure_format: FigureFormat = ()
    """Format of figures besides PNG."""
    log: Annotated[Listed, arg(metavar="NAME,NAME")] = ()
    """Trackers: tensorboard, wandb, trackio, module:function, or none; tensorboard if unset. Given
    again, it adds to them."""
    dry_run: bool = False
    """Print what would be trained, and train nothing."""
    all: bool = False
    """With --dry-run: print all settings and arrays."""
    compilation_cache: bool = True
    """Keep compiled programs on disk, so that the next start is quicker."""

    def run(self, layers: "Layers", argv: Sequence[str]) -> int:
        """Make the configuration, then train or print what would be trained."""
        if self.all and not self.dry_run:
            raise ConfigError("--all belongs to --dry-run; leave it out")
        from mbpo_jax import config_io

        # Parsed without the checks of the dataclasses (see `_unchecked`): they follow here, all.
        values: Any = self.settings
        config = config_io.apply(layers.config, values, "command line")
        by_options = config_io.differences(layers.config, config)
        refuse_unread(config, dict.fromkeys([*layers.asked_for, *by_options]))
        set_up_compilation_cache(self.compilation_cache)
        from mbpo_jax import api
        from mbpo_jax.training import plan, run_directory
        from mbpo_jax.training.trackers import tracker

        log = tracker.chosen(listed(self.log, "tensorboard"))
        run_dir = self.run_dir or run_directory.default(config, self.preset)
        if self.dry_run:
            plan.dry_run(config, run_dir, layers.usual, self.all)
            return 0
        command = [PROGRAM, *argv]
        run = api.train(
            config,
            run_dir,
            init_from=self.init_from,
            figure_format=self.figure_format,
            log=log,
            command=command,
        )
        return OF_OUTCOME[run.state]


class Layers(NamedTuple):
    """What presets and files make of the defaults, before the other options of `train`.

    Attributes:
      config: all settings.
      usual: what the presets alone make of them.
      asked_for: dotted paths of what files set. A preset sets what any algorithm needs, and so does
        a file that is whole, such as a run's config.yaml: neither asks for what it sets.
      algorithm: the one that an option names, if it does.
    """

    config: Config = Config()
    usual: Config = Config()
    asked_for: tuple[str, ...] = ()
    algorithm: str | None = None

    @property
    def helped(self) -> Config:
        """What help is about, which knows no other option."""
        return dataclasses.replace(self.config, algorithm=self.algorithm or self.config.algorithm)


def layers_of(argv: Sequence[str]) -> Layers:
    """Read the presets and files that a command line names.

    This has to be known before the options are parsed, whose defaults it gives.

    Raises:
      ConfigError: the environment, a preset or something in a file is wrong.
    """
    if not argv or argv[0] != "train":
        return Layers()
    environment = argv[1] if argv[1:] and not argv[1].startswith("-") else None
    if environment is None and argv[1:] and not {*help.HELP, help.ALL} & {*argv}:
        raise ConfigError(f"the environment comes first: {PROGRAM} train ENV {argv[1]} ...")
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} train", add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", action="append", default=[])
    parser.add_argument("--config", action="append", default=[], type=Path)
    parser.add_argument("--algorithm")
    given, _ = parser.parse_known_args(argv[1:])
    contents, asked_for = [_content(path) for path in given.config], []
    by_file = [content["algorithm"] for content in contents if "algorithm" in content]
    algorithm = given.algorithm or str(by_file[-1] if by_file else "")
    if environment is None:  # of which help goes without
        usual = preset(*given.preset, algorithm=algorithm)
    else:
        usual = environment_preset(environment, *given.preset, algorithm=algorithm)
    config = usual
    for path, content in zip(given.config, contents, strict=True):
        from mbpo_jax import config_io

        config = config_io.apply(config, content, str(path))
        asked_for += [] if config_io.is_complete(content) else config_io.paths(content)
    if environment is not None and config.env.name != environment:
        raise ConfigError(
            f"env.name: the command says {shown(environment)}, a preset or file "
            f"{shown(config.env.name)}; name the same environment in both"
        )
    return Layers(config, usual, tuple(asked_for), given.algorithm)


def _content(path: Path) -> dict[str, Any]:
    from mbpo_jax.yaml_files import read_yaml  # which takes its time to load

    return read_yaml(path)


def train_help() -> str:
    """Return the description of `train`, with a line for each algorithm."""
    algorithms = (
        f"- {name}: {record.summary} ({record.source})" for name, record in ALGORITHMS.items()
    )
    return "\n".join([str(inspect.getdoc(Train)), "\nAlgorithms:\n", *algorithms])
