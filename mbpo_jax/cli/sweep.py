"""The verb `sweep`: many runs, a few programs."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from mbpo_jax.cli.common import FigureFormat, set_up_compilation_cache
from mbpo_jax.errors import ConfigError
from mbpo_jax.exit_codes import OF_OUTCOME


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Train all runs that a file asks for, or go on with them: the same command goes on.

    Runs that differ in seeds and numbers alone are trained by one program. docs/sweeps.md says what
    a file holds.
    """

    ELSEWHERE: ClassVar = "choose another --out (a copy of this one goes on there)"

    source: Annotated[Positional[Path], arg(metavar="FILE_OR_DIR")]
    """YAML file of a sweep, or a shipped one by name (smoke, mbpo_benchmark, value_expansion); or a
    sweep's directory, to go on with what is in it."""
    out: Path | None = None
    """Directory of the sweep; below sweeps/, named after the file, if unset."""
    dry_run: bool = False
    """Print the groups, their runs, memory and time, and train nothing."""
    all: bool = False
    """With --dry-run: print all groups, however many there are."""
    retry: bool = False
    """Try groups again that failed three times."""
    executor: Literal["local", "ray", "slurm"] = "local"
    """Where groups are trained: here, one after the other; on a Ray cluster; or as SLURM jobs."""
    runs_per_group: int | None = None
    """Most runs of a group; as many as this machine's memory holds if unset. With ray and slurm,
    say how many the devices there hold."""
    address: str | None = None
    """ray: of the cluster, such as auto; one is started here for the time being if unset."""
    partition: str | None = None
    """slurm: of the jobs; the cluster's default if unset."""
    minutes: int | None = None
    """slurm: time limit of a job, 240 if unset; longer groups are saved and queued again."""
    cpus_per_task: int | None = None
    """ray and slurm: CPUs of a group; for ray all of a node if unset and groups get no GPU."""
    gpus_per_task: int | None = None
    """ray and slurm: GPUs of a group; none if unset."""
    group: str | None = None
    """Train one group of a sweep's directory in this process; this is what workers do."""

    def run(self) -> int:
        """Drive the sweep, or train one group."""
        if self.group is None:
            from mbpo_jax.sweeps.sweep import sweep

            self._check_options()
            outcome = sweep(
                self.source,
                self.out,
                dry_run=self.dry_run,
                whole=self.all,
                retry=self.retry,
                runs_per_group=self.runs_per_group,
                # Elsewhere other devices decide, and only who gives a number knows them.
                fits_here=self.executor == "local" or self.runs_per_group is None,
                train_all=self._train_all(),
            )
            return OF_OUTCOME[outcome]
        if self != Sweep(self.source, group=self.group):
            raise ConfigError("--group takes a sweep's directory and no other option")
        set_up_compilation_cache()
        from mbpo_jax.sweeps.worker import train_unit

        return OF_OUTCOME[train_unit(self.source, self.group)]

    def _check_options(self) -> None:
        belongs = {
            "address": ("ray",),
            "partition": ("slurm",),
            "minutes": ("slurm",),
            "cpus_per_task": ("ray", "slurm"),
            "gpus_per_task": ("ray", "slurm"),
        }
        options = {name: getattr(self, name) for name in (*belongs, "runs_per_group")}
        problems = [
            f"--{name.replace('_', '-')} belongs to --executor {' or '.join(executors)}"
            for name, executors in belongs.items()
            if options[name] is not None and self.executor not in executors
        ]
        problems += [
            f"--{name.replace('_', '-')}: {value} is too small; use a value >= {least}"
            for name, value in options.items()
            if isinstance(value, int) and value < (least := 0 if name == "gpus_per_task" else 1)
        ]
        if self.all and not self.dry_run:
            problems.append("--all belongs to --dry-run; leave it out")
        if problems:
            raise ConfigError(*problems)

    def _train_all(self) -> Callable[..., None]:
        """Return how groups are trained."""
        from mbpo_jax.sweeps import local, ray_tasks, slurm_jobs

        cpus, gpus = self.cpus_per_task, self.gpus_per_task or 0
        if self.executor == "ray":
            return functools.partial(
                ray_tasks.train_all, address=self.address, cpus=cpus, gpus=gpus
            )
        if self.executor == "slurm":
            return functools.partial(
                slurm_jobs.train_all,
                partition=self.partition,
                minutes=self.minutes or 240,
                cpus=cpus or 1,
                gpus=gpus,
            )
        return local.train_all


@dataclasses.dataclass(frozen=True)
class Report:
    """Write the report of a sweep, or ask questions of its rows.

    Without an option it writes report.html into the sweep's directory and prints a row for each
    variant. The tables for --sql are runs, evaluations and metrics.
    """

    sweep_dir: Annotated[Positional[Path], arg(metavar="SWEEP_DIR")]
    """Directory that `sweep` wrote."""
    sql: str | None = None
    """Print the answer to a query, such as "select algorithm, avg(final_return) from runs group by
    all"."""
    export: Path | None = None
    """Write the answer to --sql, or all runs, to a file that ends in .csv, .parquet or .json."""
    figure_format: FigureFormat = ()
    """Write the report's figures as PNG and in this format, too, into figures/ of the sweep's
    directory."""
    serve: bool = False
    """Show the report in a browser of this machine, brought up to date while the sweep runs."""
    port: int = 8765
    """Where --serve listens, on loopback alone."""

    def run(self) -> int:
        """Write, print or serve."""
        from mbpo_jax.sweeps import results

        if self.figure_format and (self.serve or self.sql is not None or self.export is not None):
            raise ConfigError("--figure-format goes without --serve, --sql and --export")
        if self.serve:
            if self.sql is not None or self.export is not None:
                raise ConfigError("--serve goes without --sql and --export")
            from mbpo_jax.sweeps.serve import serve

            return serve(self.sweep_dir, self.port)
        if self.export is not None:
            results.export(self.sweep_dir, self.export, self.sql or "select * from runs")
            print(f"see {self.export}")
        elif self.sql is not None:
            print(results.answer(self.sweep_dir, self.sql))
        else:
            from mbpo_jax.sweeps.board import print_closing

            path = results.write_report(self.sweep_dir, self.figure_format)
            print_closing(results.read_sweep_rows(self.sweep_dir)[0])
            print(f"see {path}")
            if self.figure_format:
                print(f"see {self.sweep_dir / results.FIGURES}")
        return 0
