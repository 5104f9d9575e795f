"""The verbs that look at trained runs, and those that list what there is."""

import dataclasses
from importlib import metadata
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from mbpo_jax.cli.common import FigureFormat, set_up_compilation_cache
from mbpo_jax.config import Config
from mbpo_jax.errors import ConfigError
from mbpo_jax.presets import PRESETS, preset


@dataclasses.dataclass(frozen=True)
class Eval:
    """Play episodes with the trained policies of a run directory and print their returns."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """Directory that `train` wrote."""
    episodes: int = 10
    """Episodes for each run."""
    seed: int = 0
    """Seed of the initial states."""
    best: bool = False
    """As the policies were in their best evaluations, not as they are now."""

    def run(self) -> int:
        """Evaluate, with the cache of compiled programs."""
        if self.episodes < 1:
            raise ConfigError(f"--episodes: {self.episodes} is too small; use a value >= 1")
        set_up_compilation_cache()
        from mbpo_jax import api

        runs = api.load(self.run_dir)
        for index, own_seed in enumerate(runs.seeds):
            run = runs.select(run=index)
            played = run.play(self.episodes, best=self.best, start_seed=self.seed, record=False)
            print(
                f"run {index} (seed {own_seed}) at {run.env_steps(best=self.best):,} steps: return "
                f"{played.returns.mean():,.1f} ± {played.returns.std():,.1f} over {self.episodes} "
                f"episodes, length {played.lengths.mean():,.0f}"
            )
        return 0


@dataclasses.dataclass(frozen=True)
class Render:
    """Draw an episode of a trained policy: rollout.html and rollout.webp, or episode.png."""

    run_dir: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """Directory that `train` wrote."""
    index: Annotated[int, arg(name="run")] = 0
    """Run to draw, counted from 0; more than one there is only after --num-seeds."""
    best: bool = False
    """As the policy was in its best evaluation, not as it is now."""
    figure_format: FigureFormat = ()
    """Write episode.png in this format, too."""

    def run(self) -> int:
        """Render, with the cache of compiled programs."""
        set_up_compilation_cache()
        from mbpo_jax import api

        run = api.load(self.run_dir).select(run=self.index)
        shown = run.render(best=self.best, figure_format=self.figure_format)
        for line in shown.notes:
            print(line)
        print(f"see {shown.path}")
        return 0


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a trained policy into a file that runs without this package.

    It is compared with the policy on 1,000 observations before it is there.
    """

    ELSEWHERE: ClassVar = "choose another --out"

    run_dir: Annotated[Positional[Path], arg(metavar="RUN_DIR")]
    """Directory that `train` wrote."""
    format: Literal["onnx", "stablehlo"] = "onnx"
    """ONNX, for any runtime of it; or StableHLO, which JAX reads."""
    index: Annotated[int, arg(name="run")] = 0
    """Run to take, counted from 0; more than one there is only after --num-seeds."""
    best: bool = False
    """As the policy was in its best evaluation, not as it is now."""
    out: Path | None = None
    """File to write; policy.onnx or policy.stablehlo in the run's directory if unset."""

    def run(self) -> int:
        """Export, with the cache of compiled programs."""
        set_up_compilation_cache()
        from mbpo_jax import api

        run = api.load(self.run_dir).select(run=self.index)
        path = run.export(self.out, format=self.format, best=self.best)
        print(f"see {path} and {path.name}.json")
        return 0


@dataclasses.dataclass(frozen=True)
class Envs:
    """List the suites and their environments, with sizes and physics backends."""

    def run(self) -> int:
        """Print a table."""
        from mbpo_jax.envs import ENVIRONMENTS, SUITES

        for suite, (title, packages) in SUITES.items():
            versions = ", ".join(f"{package} {_version(package)}" for package in packages)
            print(f"{title} ({versions})" if versions else title)
            print(f"  {'environment':<30}{'observation':>11}{'action':>8}  backends")
            for name, info in sorted(ENVIRONMENTS.items()):
                if info.suite == suite:
                    sizes = f"{info.observation_size:>11}{info.action_size:>8}"
                    print(f"  {name:<30}{sizes}  {', '.join(info.backends)}")
            print()
        print("Your own: mbpo-jax train module:function (see docs/environments.md)")
        return 0


def _version(package: str) -> str:
    """Return the version of a package, which may be one of an extra."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@dataclasses.dataclass(frozen=True)
class Presets:
    """List the presets, or print what one or several of them change, and all settings."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME")] = ()
    """Presets to put over each other, in this order."""

    def run(self) -> int:
        """Print a list, or YAML."""
        if self.names:
            from mbpo_jax import config_io

            found = preset(*self.names)
            print("# What this changes of the defaults:")
            for line in config_io.diff_configs(Config(), found):
                print(f"#   {line}")
            print(config_io.dump_yaml(found), end="")
            return 0
        for name, (summary, _) in PRESETS.items():
            print(f"{name:<30}{summary}")
        return 0


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Look at this machine and say what is missing and how to mend it."""

    def run(self) -> int:
        """Print what was found."""
        from mbpo_jax.cli import doctor

        return doctor.examine()
