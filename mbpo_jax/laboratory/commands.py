"""The gradient laboratory: which estimator to trust, on a problem or on what a run has learned."""

import csv
import dataclasses
import functools
import io
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from mbpo_jax.agents.actor_critic import SACState
from mbpo_jax.config import (
    Config,
    EstimatorConfig,
    StudyConfig,
    actor_critics,
    file_name,
    named,
)
from mbpo_jax.console import Stages, say
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import (
    Row,
    make_directory,
    replace_rows,
    replacing,
    to_plain,
    write_json_atomic,
    writing,
)
from mbpo_jax.laboratory.estimators.catalogue import lacking, load_estimator
from mbpo_jax.laboratory.measures import inspection
from mbpo_jax.laboratory.measures.programs import make_programs
from mbpo_jax.laboratory.measures.study import (
    keys_of,
    make_reference,
    measure,
    stages_of,
    suitable,
)
from mbpo_jax.laboratory.problems import trained
from mbpo_jax.laboratory.problems.catalogue import make_problem
from mbpo_jax.laboratory.problems.problem import Problem
from mbpo_jax.laboratory.report.conclusions import conclusions
from mbpo_jax.laboratory.report.page import CAPTIONS, study_figures, write_page
from mbpo_jax.laboratory.report.tables import cost_table_of, table_of
from mbpo_jax.models.ensemble import EnsembleState
from mbpo_jax.reports.figures import remove_figure, save_figure
from mbpo_jax.training import devices, playback, run_directory
from mbpo_jax.training.layout import set_up
from mbpo_jax.training.state import TrainState
from mbpo_jax.types import Env

STUDY = "study.json"
"""What a study was made with."""
LEAST_ROOM = 2**20
"""Bytes that a study needs for its results, about; that they are there is known before the work."""
START_STATES = 1024
"""Real states from which trajectories start."""


class Findings(NamedTuple):
    """Tidy rows of a study.

    Attributes:
      estimates: one for each estimator, horizon and batch size.
      steps: one for each estimator and step, at the longest horizon.
      sources: one for each estimator and source of noise, at the longest horizon.
      stability: one for each horizon up to the longest.
      weights: of the likelihood ratio, one for each step, of estimators that weigh steps.
      slices: returns along the gradient, at the longest horizon.
    """

    estimates: list[Row]
    steps: list[Row]
    sources: list[Row]
    stability: list[Row]
    weights: list[Row]
    slices: list[Row]


CLOSER = ("steps", "sources", "stability", "weights", "slices")
"""What is looked at of the longest horizon alone."""


def number_of_stages(problem: Problem, config: StudyConfig) -> int:
    """Return how many stages `examine` announces."""
    return stages_of(problem, config) + len(CLOSER)


def examine(
    problem: Problem,
    config: StudyConfig,
    settings: EstimatorConfig | None = None,
    true: Problem | None = None,
    announce=lambda line: None,
) -> Findings:
    """Measure estimators, and look closer at the longest horizon.

    Args:
      problem: what gradients are estimated of.
      config: what is measured.
      settings: of the estimators.
      true: see `study`.
      announce: told what is about to be measured.

    Raises:
      ConfigError: an estimator is unknown, or needs what the problem lacks.
    """
    names, longest = suitable(config, problem), max(config.horizons)
    programs = make_programs(problem, settings or EstimatorConfig())
    reference_of = functools.cache(lambda horizon: make_reference(problem, horizon, config))
    rows = measure(programs, config, reference_of, true, announce)
    gradient = np.mean(reference_of(longest).draws, axis=0)
    # Where a variance could not be told, its parts cannot be, either.
    largest = max(config.batch_sizes)
    at_end = [row for row in rows if (row["horizon"], row["batch_size"]) == (longest, largest)]
    known = [row["estimator"] for row in at_end if row["variance"]]
    looks = {
        "steps": lambda: inspection.step_rows(known, programs, longest, largest, config),
        "sources": lambda: inspection.source_rows(known, programs, longest, largest, config),
        "stability": lambda: inspection.stability_rows(problem, longest, config),
        "weights": lambda: inspection.weight_rows(names, programs, longest, largest, config),
        "slices": lambda: inspection.slice_rows(problem, true, gradient, longest, config),
    }
    found = {}
    for name in CLOSER:
        announce(f"horizon {longest}, a closer look: {name}")
        found[name] = looks[name]()
    return Findings(rows, **found)


class RunProblems(NamedTuple):
    """Problems of a run's policy.

    Attributes:
      learned: in its ensemble; None for a run without one.
      true: in the real environment; None where its simulator states are not known.
    """

    learned: Problem | None
    true: Problem | None


def problems_of(
    env: Env, config: Config, state: TrainState, key: jax.Array, from_replay: bool
) -> RunProblems:
    """Build the problems of one run.

    Args:
      env: the run's environment.
      config: of the run.
      state: of the run alone.
      key: a key, used up.
      from_replay: start in states of its replay buffer; else where the policy goes now.

    Raises:
      ConfigError: its policy is no actor-critic's.
    """
    agent = state.agent
    if not isinstance(agent, SACState):
        raise ConfigError(
            f"run: {config.algorithm} has no actor and critic; use a run of one of: "
            f"{', '.join(actor_critics())}"
        )
    if from_replay:
        starts = trained.replayed(key, state.replay, START_STATES)
    else:
        starts = trained.visited(key, env, config, agent, START_STATES)
    learned = true = None
    if isinstance(state.model, EnsembleState):
        learned = trained.make_learned_problem(env, config, agent, state.model, starts)
    if jax.tree.leaves(starts.simulator):
        true = trained.make_true_problem(env, config, agent, starts)
    return RunProblems(learned, true)


def load_problems(
    run_dir: Path, index: int, seed: int, from_replay: bool, env: Env | None = None
) -> RunProblems:
    """Build the problems of a run directory's newest checkpoint.

    Args:
      run_dir: the directory.
      index: of the run in it.
      seed: of the states that trajectories start from.
      from_replay: see `problems_of`.
      env: the runs' environment; the one that their configuration names if None.

    Raises:
      ConfigError: it is no run directory, it has no such run or no checkpoint, or its policy is no
        actor-critic's.
    """
    group = run_directory.load_group(run_dir)
    playback.check_run(group, index)
    devices.use_host_devices(len(group.runs))
    setup = set_up(group, env)
    state = playback.of_run(playback.load_checkpoint(run_dir, setup).state, index)
    return problems_of(setup.env, group.runs[index], state, keys_of(seed).starts, from_replay)


def left_out(problem: Problem, config: StudyConfig) -> list[str]:
    """Say which estimators that were asked for have no row somewhere, and why."""
    lines = {}
    for name in named(config.estimators):
        for horizon in config.horizons:
            for size in config.batch_sizes:
                if why := lacking(name, problem, horizon, size):
                    lines[name] = f"{name} is left out where it lacks what it needs: {why}"
    return list(lines.values())


def prepare_directory(out: Path) -> None:
    """Make the directory of the results if need be, and see that it takes files.

    Raises:
      DiskError: it does not.
    """
    make_directory(out)
    if (out / STUDY).exists():
        print(f"{out} holds a study, which this one will replace; another --out keeps it")
    with writing(out, LEAST_ROOM), tempfile.TemporaryFile(dir=out, buffering=0) as file:
        file.write(bytes(LEAST_ROOM))


def write(
    out: Path,
    findings: Findings,
    lines: Sequence[str],
    title: str,
    command: str,
    config: StudyConfig,
    settings: EstimatorConfig,
    figure_format: Collection[str] = (),
) -> None:
    """Write rows, figures and page; everything is made before the first file is replaced."""
    rows = findings.estimates
    figures = study_figures(*findings)
    names = dict.fromkeys(row["estimator"] for row in rows)
    notes = {name: load_estimator(name).record for name in names}
    for name, part in findings._asdict().items():
        if part:
            replace_rows(out / f"{name}.jsonl", part)
        else:  # of an earlier study
            (out / f"{name}.jsonl").unlink(missing_ok=True)
    for name in CAPTIONS.keys() - figures.keys():
        remove_figure(out / f"{name}.png")
    with replacing(out / "estimates.csv") as file:
        file.write(as_csv(rows).encode())
    made_with = dataclasses.asdict(config) | {"settings": dataclasses.asdict(settings)}
    write_json_atomic(out / STUDY, {"command": command, **made_with})
    for name, figure in figures.items():
        save_figure(out / f"{name}.png", figure, figure_format)
    write_page(
        out / "report.html",
        title,
        command,
        lines,
        (table_of(rows), cost_table_of(rows)),
        figures,
        notes,
    )


def as_csv(rows: Sequence[Row]) -> str:
    """Return rows as comma-separated values; the parts of a list get columns of their own."""
    flat = [_flattened(row) for row in rows]
    columns = dict.fromkeys(name for row in flat for name in row)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns)
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()


def _flattened(row: Row) -> Row:
    flat: Row = {}
    for name, value in to_plain(row).items():
        if isinstance(value, list):
            flat |= {f"{name}_{i}": x for i, x in enumerate(value)}
        elif not (name.endswith("_interval") and value is None):
            flat[name] = value
    return flat


def printed(table: Sequence[Sequence[str]]) -> str:
    """Return a table in columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def report(
    problem: Problem,
    true: Problem | None,
    title: str,
    config: StudyConfig,
    settings: EstimatorConfig,
    out: Path,
    command: str,
    figure_format: Collection[str],
) -> int:
    """Measure, print a table and conclusions, and write all results."""
    # What is wrong with the names or the directory is known before the work.
    suitable(config, problem)
    prepare_directory(out)
    with Stages(number_of_stages(problem, config), Console(stderr=True)) as stages:
        findings = examine(problem, config, settings, true, stages.begin)
    lines = conclusions(findings.estimates, findings.stability) + left_out(problem, config)
    print(printed(table_of(findings.estimates)))
    print()
    for line in lines:
        print(line)
    write(out, findings, lines, title, command, config, settings, figure_format)
    print()
    say(Console(), "see", out / "report.html")
    return 0


def measure_problem(
    name: str,
    given: Mapping[str, float],
    config: StudyConfig,
    settings: EstimatorConfig,
    out: Path | None,
    command: str,
    figure_format: Collection[str] = (),
) -> int:
    """Study a problem by its name.

    Raises:
      ConfigError: the problem or an estimator is unknown, or they do not go together.
    """
    problem = make_problem(name, **given)
    varied = "".join(f"-{key}-{value:g}" for key, value in given.items())
    out = out or Path("gradients", file_name(name) + varied)
    title = ", ".join(
        [f"Gradient estimators on {name}", *(f"{k} = {v:g}" for k, v in given.items())]
    )
    return report(problem, None, title, config, settings, out, command, figure_format)


def measure_run(
    run_dir: Path,
    index: int,
    model: str,
    config: StudyConfig,
    settings: EstimatorConfig,
    out: Path | None,
    command: str,
    figure_format: Collection[str] = (),
) -> int:
    """Study what a run has learned, in a model: learned, oracle, or both against each other.

    Raises:
      ConfigError: the run does not fit, or an estimator does not fit it.
    """
    problems = load_problems(run_dir, index, config.seed, from_replay=model == "learned")
    if model != "oracle" and problems.learned is None:
        raise ConfigError(f"model: {run_dir} has no learned model; use --model oracle")
    problem = problems.true if model == "oracle" else problems.learned
    assert problem is not None  # states that the policy visits have their simulators
    true = problems.true if model == "both" else None
    title = f"Gradient estimators on {run_dir} (model: {model})"
    out = out or run_dir / f"gradients-{model}"
    return report(problem, true, title, config, settings, out, command, figure_format)
