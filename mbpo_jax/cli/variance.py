"""The verb `variance`: the gradient laboratory."""

import dataclasses
import inspect
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from mbpo_jax.cli.common import (
    PROGRAM,
    FigureFormat,
    Listed,
    listed,
    set_up_compilation_cache,
)
from mbpo_jax.config import (
    ESTIMATORS,
    PROBLEMS,
    EstimatorConfig,
    StudyConfig,
    unread_settings,
)
from mbpo_jax.errors import ConfigError, shown


@dataclasses.dataclass(frozen=True)
class Variance:
    """Compare gradient estimators on a problem, or on what a run has learned.

    Prints a table and writes rows, figures and report.html; docs/gradients.md explains it all.
    """

    ELSEWHERE: ClassVar = "choose another --out"

    estimators: Annotated[Listed, arg(metavar="NAME,NAME")] = ()
    """Names from the list above with commas between them, or all that suit the problem; rp,lr if
    unset. `module:function` makes one of your own."""
    problem: str | None = None
    """Problem to measure on, from the list above; `module:function` makes one of your own. Or give
    --run."""
    run: Path | None = None
    """Directory that `train` wrote: its policy and critics, in its ensemble."""
    index: int = 0
    """Run in that directory, counted from 0; more than one there is only after --num-seeds."""
    model: Literal["learned", "oracle", "both"] = "learned"
    """With --run: measure in the ensemble, or in the true system in its place; or in the ensemble
    against the true system, which tells the model's share in the error. The latter two start where
    the policy goes now, as replay holds no simulator states; learned starts from replay."""
    horizons: Annotated[Listed, arg(metavar="STEPS,STEPS")] = ()
    """Steps of trajectories, with commas between them; 1,2,5,10,20 if unset."""
    batch_sizes: Annotated[Listed, arg(metavar="NUMBER,NUMBER")] = ()
    """Trajectories of an estimate, with commas between them; 16 if unset."""
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
    figure_format: FigureFormat = ()
    """Write figures in this format, too, besides PNG."""
    settings: Annotated[EstimatorConfig, arg(name="estimator")] = dataclasses.field(
        default_factory=EstimatorConfig
    )

    def run_study(self, argv: Sequence[str]) -> int:
        """Check everything that can be checked without JAX, then measure."""
        if (self.problem is None) == (self.run is None):
            raise ConfigError("give one of --problem NAME and --run RUN_DIR")
        names = ("beta", "frequency", "width", "stiffness", "critic_error")
        given = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        if self.run is None and (self.index, self.model) != (0, "learned"):
            raise ConfigError("--index and --model belong to --run; leave them out")
        if self.run is not None and (given or self.precision != "float64"):
            raise ConfigError("--precision and settings of problems belong to --problem, not --run")
        values: Any = self.settings
        settings = EstimatorConfig(**values) if isinstance(values, dict) else self.settings
        config = StudyConfig(
            estimators=tuple(listed(self.estimators, "rp,lr")),
            horizons=_whole_numbers("horizons", listed(self.horizons, "1,2,5,10,20")),
            batch_sizes=_whole_numbers("batch_sizes", listed(self.batch_sizes, "16")),
            batches=self.batches,
            reference_batches=self.reference_batches,
            reference_batch_size=self.reference_batch_size,
            seed=self.seed,
        )
        if unread := unread_settings(settings, config.estimators):
            raise ConfigError(*unread)
        import jax

        if self.run is None and self.precision == "float64":
            jax.config.update("jax_enable_x64", True)
        set_up_compilation_cache()
        from mbpo_jax.laboratory import commands

        command = shlex.join([PROGRAM, *argv])
        if self.run is not None:
            return commands.measure_run(
                self.run,
                self.index,
                self.model,
                config,
                settings,
                self.out,
                command,
                self.figure_format,
            )
        return commands.measure_problem(
            str(self.problem), given, config, settings, self.out, command, self.figure_format
        )


def _whole_numbers(name: str, texts: list[str]) -> tuple[int, ...]:
    """Read whole numbers."""
    try:
        return tuple(map(int, texts))
    except ValueError as error:
        given = shown(",".join(texts))
        raise ConfigError(f"{name}: {given} is no list of whole numbers such as 1,2,5") from error


def variance_help() -> str:
    """Return the description of `variance`, with a line for each estimator and problem."""
    estimators = (f"- {name}: {r.summary} ({r.source})" for name, r in ESTIMATORS.items())
    problems = (f"- {name}: {record.summary}" for name, record in PROBLEMS.items())
    heading = str(inspect.getdoc(Variance))
    return "\n".join([heading, "\nEstimators:\n", *estimators, "\nProblems:\n", *problems])
