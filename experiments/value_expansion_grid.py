"""Do the published findings on value expansion hold on the published grid?

`mbpo-jax sweep value_expansion` trains it: critic expansion (MVE), actor expansion (SVG) and
Retrace at six horizons, through the learned model and through the true system, each of SAC and of a
learner like DDPG, nine seeds. What of it is finished is put into results/value_expansion_grid.jsonl
by `collect`, one row for each run, where it takes the place of the same run's older row; `draw`
makes the figure and the tables from all rows. `mbpo-jax sweep experiments/longer_fits.yaml` trains
the critic's expansion once more with a better model, whose rows stand beside the others:

    python -m experiments.value_expansion_grid collect SWEEP_DIR...
    python -m experiments.value_expansion_grid draw

Palenicek et al. (ICLR 2023; arXiv:2412.20537) report that the gain shrinks with the horizon, that
the true system gains hardly more than a learned model, and that Retrace, which needs no model, is
on par with critic expansion.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.common import RESULTS, markdown, results_file
from experiments.value_expansion import WHERE, interval
from mbpo_jax.config import Config
from mbpo_jax.files import Row, read_rows, replace_rows, replacing
from mbpo_jax.sweeps.results import read_sweep_rows
from mbpo_jax.sweeps.store import units_of

NAME = "value_expansion_grid"
AGENTS = {None: "SAC", 0.1: "DDPG-like"}
"""By `sac.exploration_noise`, which makes the policy deterministic."""
NOTHING = "no expansion"
FIT_STEPS = 250
"""Gradient steps of a fit in the shipped sweep; learners that make others are named by theirs."""
DIFFERENCES = (
    ("critic, oracle", "critic, learned"),
    ("actor, oracle", "actor, learned"),
    ("Retrace", "critic, learned"),
    ("critic, oracle", "critic, learned, 1,000 steps a fit"),
    ("critic, oracle", "critic, learned, 4,000 steps a fit"),
)
"""Whether the true system gains more than a learned one, and whether Retrace is on par."""

IDENTITY = ("environment", "agent", "learner", "horizon", "seed")

Curves = dict[str, dict[int, np.ndarray]]
"""The mean return over training of each run, `[seeds]`, by learner and horizon."""


def collect(sweep_dir: Path, known: Sequence[Row] = ()) -> list[Row]:
    """Return a row for each finished run of a sweep: what it is, and what it came to.

    Args:
      sweep_dir: of the sweep.
      known: rows of runs, which are left out where they are finished here, too.
    """
    configs = {unit.name: unit.group.runs for unit in units_of(sweep_dir)}
    runs, _ = read_sweep_rows(sweep_dir)
    kept = ("seed", "env_steps", "mean_return", "final_return", "diverged", "model/holdout_r2")
    found = [
        identify(configs[run["group"]][run["run"]]) | {name: run[name] for name in kept}
        for run in runs
        if run["trained"]
    ]
    rows = {tuple(row[name] for name in IDENTITY): row for row in (*known, *found)}
    return [rows[identity] for identity in sorted(rows)]


def identify(config: Config) -> Row:
    """Return what is trained, and through how many model steps, or transitions after the first."""
    match config.algorithm:
        case "sac":
            learner, horizon = NOTHING, 0
        case "retrace":
            learner, horizon = "Retrace", config.retrace.length - 1
        case algorithm:
            (where,) = (place for place, name in WHERE.items() if name == algorithm)
            learner, horizon = f"{where}, {config.model}", config.expansion.horizon
            if config.model == "learned" and config.fit.num_steps != FIT_STEPS:
                learner += f", {config.fit.num_steps:,} steps a fit"
    return {
        "environment": config.env.name,
        "agent": AGENTS[config.sac.exploration_noise],
        "learner": learner,
        "horizon": horizon,
    }


def panels(rows: Sequence[Row]) -> dict[str, Curves]:
    """Return the curves of each environment and agent, which begin without an expansion.

    Where that is not trained yet, there is nothing to compare with, and no panel. Curves whose
    first steps are left out begin later.
    """
    found: dict[str, dict[str, dict[int, dict[int, float]]]] = {}
    for row in rows:
        curves = found.setdefault(f"{row['environment']}, {row['agent']}", {})
        points = curves.setdefault(row["learner"], {})
        points.setdefault(row["horizon"], {})[row["seed"]] = row["mean_return"]
    return {
        panel: {
            learner: {
                horizon: np.array([seeds[seed] for seed in sorted(seeds)])
                for horizon, seeds in sorted(
                    ((curves[NOTHING] if 1 in points else {}) | points).items()
                )
            }
            for learner, points in sorted(curves.items())
            if learner != NOTHING
        }
        for panel, curves in sorted(found.items())
        if NOTHING in curves and len(curves) > 1
    }


def gain(
    points: Mapping[int, np.ndarray], horizons: Sequence[int]
) -> dict[int, tuple[float, float, float]]:
    """Return by horizon what it gains over the horizon before, in the mean, with its interval.

    Runs of the same seed begin with the same random steps, so they are compared as pairs.

    Args:
      points: returns by horizon.
      horizons: of all learners, in order.
    """
    return {
        longer: interval(points[longer] - points[shorter])
        for shorter, longer in itertools.pairwise(horizons)
        if shorter in points and longer in points
    }


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """Yield headings and tables: returns, gains, and the differences that were published."""
    yield "# Value expansion on the published grid\n"
    yield (
        "Evaluation return averaged over training, mean and 95 % bootstrap interval over seeds.\n"
        "Made by `python -m experiments.value_expansion_grid draw`.\n"
    )
    for panel, curves in panels(rows).items():
        horizons = sorted({horizon for points in curves.values() for horizon in points})
        expanded = [horizon for horizon in horizons if horizon]
        seeds = {len(values) for points in curves.values() for values in points.values()}
        yield f"## {panel}, {' or '.join(map(str, sorted(seeds)))} seeds\n"
        yield _table("Return at H =", horizons, _intervals(curves))
        gains = {learner: gain(points, horizons) for learner, points in curves.items()}
        steps = {learner: found for learner, found in gains.items() if found}
        yield _table("Gain over the horizon before, H =", expanded, steps)
        differences = {
            f"{one} - {other}": {
                horizon: interval(curves[one][horizon] - curves[other][horizon])
                for horizon in expanded
                if horizon in curves[one] and horizon in curves[other]
            }
            for one, other in DIFFERENCES
            if one in curves and other in curves
        }
        yield _table("Difference at H =", expanded, differences)


def _intervals(curves: Curves) -> dict[str, dict[int, tuple[float, float, float]]]:
    return {
        learner: {horizon: interval(values) for horizon, values in points.items()}
        for learner, points in curves.items()
    }


def _table(
    head: str,
    horizons: Sequence[int],
    lines: Mapping[str, Mapping[int, tuple[float, float, float]]],
) -> str:
    rows = [
        [
            label,
            *(
                "{:,.1f} [{:,.1f}, {:,.1f}]".format(*points[horizon]) if horizon in points else ""
                for horizon in horizons
            ),
        ]
        for label, points in lines.items()
    ]
    return markdown([head, *map(str, horizons)], rows) + "\n"


def draw(rows: Sequence[Row]) -> None:
    """Write the figure and the tables."""
    from experiments.comparison import interval_curves

    interval_curves(
        RESULTS / f"{NAME}.png",
        {panel: _intervals(curves) for panel, curves in panels(rows).items()},
        "Expansion horizon H (model steps)",
        "Evaluation return, averaged over training\n(mean and 95 % interval over seeds)",
    )
    with replacing(RESULTS / f"{NAME}.md") as file:
        file.write("\n".join(tables(rows)).encode())


def main() -> int:
    parser = argparse.ArgumentParser(description="Value expansion on the published grid.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("collect", help="take the runs of sweeps").add_argument(
        "sweeps", type=Path, nargs="+", metavar="SWEEP_DIR"
    )
    commands.add_parser("draw", help="draw the rows that were taken")
    arguments = parser.parse_args()
    if arguments.command == "collect":
        results = results_file(NAME)
        rows = read_rows(results) if results.exists() else []
        for sweep_dir in arguments.sweeps:
            rows = collect(sweep_dir, rows)
        replace_rows(results, rows)
        print(f"{len(rows)} runs: {results}")
    else:
        draw(read_rows(results_file(NAME)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
