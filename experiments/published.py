"""A published curve beside ours: `python -m experiments.published`.

MBPO, MBPO with MACURA's rollouts, DHMBPO and SAC on Gymnasium's MuJoCo tasks, beside returns
published for the older versions of these tasks. A run takes hours, so training, collecting and
drawing are three commands:

  run NAME [--core N]         trains a run of `RUNS` into `runs/published/NAME`, or resumes it,
                              in one process pinned to a core; without a name, lists all commands
  collect DIR... --load TEXT  takes the evaluations of run directories, finished or not, into
                              `results/published.jsonl`; TEXT says how many cores a run had
                              and what else the machine did
  draw                        draws `results/published.png` and writes `results/published.md`

The returns of others, and what they are, are in `experiments.published_data`.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import common
from experiments.published_data import (
    LARGE_FITS,
    LEARNERS,
    VARIANTS,
    VERSIONS,
    Comparison,
    collect,
    compare,
    identity,
)
from mbpo_jax.errors import UserError
from mbpo_jax.files import Row, read_rows, replacing
from mbpo_jax.reports import statistics

NAME = "published"


class Run(NamedTuple):
    """What is trained; every other setting is the preset's."""

    task: str
    algorithm: str
    seed: int
    total_env_steps: int

    @property
    def name(self) -> str:
        return f"{self.task.partition('-v')[0].lower()}-{self.algorithm}-{self.seed}"

    def arguments(self) -> list[str]:
        """Return the command line that trains or resumes this run, without the program."""
        algorithms = {"macura": "mbpo", "dhmbpo_large_fits": "dhmbpo", "sac_5_critics": "sac"}
        algorithm = algorithms.get(self.algorithm, self.algorithm)
        options = {
            "algorithm": algorithm,
            "seed": self.seed,
            "total-env-steps": self.total_env_steps,
            "eval-every": 1000,
            "checkpoint-every": 1000,
            "run-dir": Path("runs", NAME, self.name).as_posix(),
        }
        if self.algorithm == "sac":
            options["sac.utd-ratio"] = 1
        if self.algorithm == "sac_5_critics":
            options["preset"] = self.algorithm
        if self.algorithm == "dhmbpo_large_fits":
            options["fit.batch-size"] = LARGE_FITS
        if self.algorithm == "macura":  # its rollouts, in the learner of `mbpo`
            options |= {
                "preset": "macura",
                "rollout.threshold-scale": 30,
                "rollout.threshold-quantile": 0.9,
            }
        words = (word for name, value in options.items() for word in (f"--{name}", str(value)))
        return ["train", f"gym/{self.task}", *words]


RUNS = {
    run.name: run
    for run in (
        *(Run("HalfCheetah-v5", "mbpo", seed, 20_000) for seed in range(2)),
        *(Run("HalfCheetah-v5", "sac", seed, 20_000) for seed in range(2)),
        *(Run("HalfCheetah-v5", "sac_5_critics", seed, 33_000) for seed in range(3)),
        *(Run("Hopper-v5", "sac_5_critics", seed, 33_000) for seed in range(3)),
        *(Run("Hopper-v5", "mbpo", seed, 50_000) for seed in range(2)),
        *(Run("Hopper-v5", "macura", seed, 33_000) for seed in range(2)),
        *(Run("HalfCheetah-v5", "dhmbpo", seed, 33_000) for seed in range(3)),
        *(Run("Hopper-v5", "dhmbpo", seed, 33_000) for seed in range(3)),
        *(Run("Walker2d-v5", "dhmbpo", seed, 23_000) for seed in range(2)),
        *(Run("Ant-v5", "dhmbpo", seed, 23_000) for seed in range(2)),
        *(Run("Ant-v5", "dhmbpo_large_fits", seed, 23_000) for seed in range(2)),
    )
}


def train(name: str, core: int | None) -> None:
    """Become the process that trains a run, on one core if one is given."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    os.execv(sys.executable, [sys.executable, "-m", "mbpo_jax", *RUNS[name].arguments()])


def tables(rows: Sequence[Row]) -> str:
    """Return what stands in `published.md`: returns at the published steps, and all runs."""
    returns = common.markdown(
        (
            *("task", "algorithm", "updates a step", "env steps", "published", "ours"),
            *("95 % interval", "difference"),
        ),
        map(comparison_cells, compare(rows)),
    )
    runs = common.markdown(
        (
            *("task", "algorithm", "updates a step", "seed", "env steps", "hours"),
            *("cores", "devices", *VERSIONS, "commit", "beside it"),
        ),
        run_cells(rows),
    )
    return f"""# Published returns and ours

Mean ± standard deviation over seeds, whose number stands in brackets; updates are ours. Returns are
averages over the evaluations up to 2,500 steps before and after. The interval is a bootstrap over
seeds, of which it needs {statistics.FEWEST}. The difference is in published standard deviations.
Published SAC has five critics and more besides, as ours of this name; the points beside SAC with
two critics are of it, too. README.md, a folder up, says what is known of both.

{overview(rows)}

{returns}

Cores are those of the machine, of which a run may have had fewer; commits are those of all
processes that trained it.

{runs}
"""


def overview(rows: Sequence[Row]) -> str:
    """Return the table of the project's README: a line for each task and step, ours over published.

    Ours is the mean over seeds, with its interval where there is one; the best of ours is bold.
    """
    found: dict[tuple[str, int], list[Comparison]] = {}
    for each in compare(rows):
        found.setdefault((each.task, each.point.env_steps), []).append(each)
    there = {each.algorithm for line in found.values() for each in line}
    learners = [name for name in LEARNERS if name in there]
    lines = []
    for (task, step), line in sorted(found.items()):
        best = max(line, key=lambda each: each.returns.mean())
        cells = {name: [] for name in learners}
        for each in line:
            cells[each.algorithm].append(overview_cell(each, each is best))
        lines.append([task, f"{step:,}", *map("<br>".join, cells.values())])
    return common.markdown(
        ["task", "env steps", *(LEARNERS[name].ours for name in learners)], lines
    )


def overview_cell(found: Comparison, bold: bool) -> str:
    mean, low, high = statistics.estimate(statistics.mean, [found.returns])
    ours = f"**{mean:,.0f}**" if bold else f"{mean:,.0f}"
    if not np.isnan(low):
        ours += f" [{low:,.0f}, {high:,.0f}]"
    count, point = found.returns.size, found.point
    ours += f", {count} seed{'s' if count > 1 else ''}"
    if found.algorithm in VARIANTS:
        return ours
    return f"{ours}<br>*{point.mean:,.0f} ± {point.std:,.0f}*"


def comparison_cells(found: Comparison) -> list[str]:
    point, returns = found.point, found.returns
    ours = f"{returns.mean():,.0f}" + (f" ± {returns.std():,.0f}" if returns.size > 1 else "")
    _, low, high = statistics.estimate(statistics.mean, [returns])
    return [
        found.task,
        LEARNERS[found.algorithm].ours,
        str(found.utd),
        f"{point.env_steps:,}",
        f"{point.mean:,.0f} ± {point.std:,.0f} ({point.seeds})",
        f"{ours} ({returns.size})",
        "" if np.isnan(low) else f"{low:,.0f} to {high:,.0f}",
        f"{found.difference:+.1f}",
    ]


def run_cells(rows: Sequence[Row]) -> Iterator[list[str]]:
    for (task, algorithm, utd, seed), row in {identity(row): row for row in rows}.items():
        yield [
            task,
            LEARNERS[algorithm].ours,
            str(utd),
            str(seed),
            f"{row['env_steps']:,}",
            f"{row['wall_seconds'] / 3600:.2f}",
            str(row["cores"] or "?"),
            ", ".join(row["devices"] or "?"),
            *(row["versions"][name] or "?" for name in VERSIONS),
            ", ".join(short(commit) for commit in row["commits"]),
            row["load"],
        ]


def short(commit: str | None) -> str:
    """Abbreviate a revision, keeping its note that files differ from it."""
    return commit[:7] + commit[40:] if commit else "?"


def draw(rows: Sequence[Row], directory: Path) -> None:
    """Print and write the tables, and draw the figure."""
    from experiments.published_figure import published_figure
    from mbpo_jax.reports.figures import save_figure

    written = tables(rows)
    print(written)
    with replacing(directory / f"{NAME}.md") as file:
        file.write(written.encode())
    save_figure(directory / f"{NAME}.png", published_figure(rows))


def main() -> int:
    parser = argparse.ArgumentParser(description="A published curve beside ours.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="train a run, or resume it")
    run.add_argument("name", nargs="?", choices=list(RUNS), help="all are listed if left out")
    run.add_argument("--core", type=int, help="the only core that the run may use")
    collecting = verbs.add_parser("collect", help="take the evaluations of run directories")
    collecting.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR")
    collecting.add_argument(
        "--load", required=True, help="cores of a run, and what else the machine did"
    )
    verbs.add_parser("draw", help="draw the committed rows, and tabulate them")
    arguments = parser.parse_args()
    results = common.results_file(NAME)
    if arguments.verb == "collect":
        try:
            rows = collect(arguments.run_dirs, arguments.load, results)
        except UserError as error:
            parser.error(str(error))
        print(f"{len({identity(row) for row in rows})} runs, {len(rows)} evaluations: {results}")
    elif arguments.verb == "draw":
        if not results.exists():
            parser.error(f"there is no {results} yet; collect run directories first")
        draw(read_rows(results), common.RESULTS)
    elif arguments.name:
        train(arguments.name, arguments.core)
    else:
        for each in RUNS.values():
            print(f"{each.name:<20} {shlex.join(['mbpo-jax', *each.arguments()])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
