"""Does MBPO learn as fast with a third of the model's gradient steps?

The preset `fast` beside the reference's rule for fitting, on a small task and on one of MuJoCo.

    python -m experiments.fast_preset run                          # lists the commands that train
    python -m experiments.fast_preset collect TASK RULE RUN_DIR... # takes what they have written
    python -m experiments.fast_preset draw                         # draws it, and writes the table

Rows in `results/fast_preset.jsonl` are evaluations, with the gradient steps that fits of the model
had made until then.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments import common
from experiments.model_fitting_figure import count_logarithmically
from mbpo_jax.files import Row, read_rows
from mbpo_jax.reports import statistics
from mbpo_jax.reports.figures import CURVE_STYLES, draw_band, figure_style, save_figure, step_axis

NAME = "fast_preset"
TASKS = {
    "pendulum": "pendulum --num-seeds 5 --rollout.real-ratio 0.05",
    "HalfCheetah-v5": "gym/HalfCheetah-v5 --seed SEED --total-env-steps 10000",
}
RULES = {"reference": "", "fast": " --preset fast"}


def rows_of(run_dir: Path) -> Iterator[Row]:
    """Yield the evaluations of a run directory, with gradient steps of the model until then."""
    fits = read_rows(run_dir / "metrics.jsonl")
    for row in read_rows(run_dir / "evals.jsonl"):
        steps = sum(
            fit.get("model/gradient_steps") or 0.0
            for fit in fits
            if fit["run"] == row["run"] and fit["env_steps"] <= row["env_steps"]
        )
        names = ("env_steps", "seed", "return_mean", "wall_seconds")
        yield {**{name: row[name] for name in names}, "gradient_steps": int(steps)}


def collect(task: str, rule: str, run_dirs: Sequence[Path]) -> None:
    """Put the rows of run directories in the place of the old ones of this task and rule."""
    rows = [{"task": task, "rule": rule, **row} for run_dir in run_dirs for row in rows_of(run_dir)]
    common.replace_part(NAME, f"{task}: {rule}", rows)


def by_steps(rows: Sequence[Row], column: str) -> tuple[list[int], np.ndarray]:
    """Return the steps at which all seeds were evaluated, and a column `[steps, seeds]`."""
    seeds = sorted({row["seed"] for row in rows})
    found = {(row["env_steps"], row["seed"]): row[column] for row in rows}
    steps = sorted({row["env_steps"] for row in rows})
    steps = [n for n in steps if all((n, seed) in found for seed in seeds)]
    return steps, np.array([[found[n, seed] for seed in seeds] for n in steps], float)


def table(rows: Sequence[Row]) -> str:
    """Return returns and gradient steps at a few moments, as Markdown."""
    note = (
        "Returns: mean over seeds, and from the lowest to the highest; 95 % interval by a\n"
        "bootstrap over seeds, of which it needs three. Gradient steps: of the model, so far.\n\n"
    )
    names = ("task", "env steps", "rule", "seeds", "return", "interval", "gradient steps")
    lines = []
    for task in TASKS:
        own = {rule: of_part(rows, task, rule) for rule in RULES}
        common_steps = sorted(
            set.intersection(*(set(by_steps(part, "return_mean")[0]) for part in own.values()))
        )
        for n in common_steps[-5:]:
            for rule, part in own.items():
                steps, returns = by_steps(part, "return_mean")
                y = returns[steps.index(n)]
                used = by_steps(part, "gradient_steps")[1][steps.index(n)]
                _, low, high = statistics.estimate(statistics.mean, [y])
                interval = "" if np.isnan(low) else f"{low:,.0f} to {high:,.0f}"
                cells = [task, f"{n:,}", rule, str(len(y))]
                cells += [f"{y.mean():,.0f} ({y.min():,.0f} to {y.max():,.0f})", interval]
                lines.append([*cells, f"{used.mean():,.0f}"])
    return f"{note}{common.markdown(names, lines)}\n"


def of_part(rows: Sequence[Row], task: str, rule: str) -> list[Row]:
    """Return the rows of a task and a rule."""
    return [row for row in rows if row["task"] == task and row["rule"] == rule]


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Draw returns against environment steps and against gradient steps of the model."""
    axes_of = {"env_steps": "Environment steps", "gradient_steps": "Gradient steps of the model"}
    with figure_style():
        figure = Figure(figsize=(4.2 * len(TASKS), 6.0), layout="constrained")
        grid = figure.subplots(2, len(TASKS), squeeze=False, sharey="col")
        for column, task in enumerate(TASKS):
            for line, (name, label) in enumerate(axes_of.items()):
                panel = grid[line, column]
                for i, rule in enumerate(RULES):
                    steps, returns = by_steps(of_part(rows, task, rule), "return_mean")
                    used = by_steps(of_part(rows, task, rule), "gradient_steps")[1].mean(axis=1)
                    x = steps if name == "env_steps" else used
                    color, dashes = CURVE_STYLES[i]
                    text = f"{rule} ({returns.shape[1]} seeds)"
                    panel.plot(x, returns.mean(axis=1), color=color, linestyle=dashes, label=text)
                    low, high = returns.min(axis=1), returns.max(axis=1)
                    draw_band(panel, x, low, high, color)
                if name == "gradient_steps":
                    panel.set_xlabel(label)
                    count_logarithmically(panel)
                else:
                    step_axis(panel, label)
            grid[0, column].set_title(task)
            grid[0, column].legend()
        for line in grid:
            line[0].set_ylabel("Return")
    save_figure(path, figure)


def main() -> int:
    parser = argparse.ArgumentParser(description="MBPO with a third of the fitting.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run", help="list the commands that train")
    collecting = verbs.add_parser("collect", help="take the evaluations of run directories")
    collecting.add_argument("task", choices=TASKS)
    collecting.add_argument("rule", choices=RULES)
    collecting.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR")
    verbs.add_parser("draw", help="draw the committed rows, and tabulate them")
    arguments = parser.parse_args()
    if arguments.verb == "run":
        for command in TASKS.values():
            for options in RULES.values():
                print(f"mbpo-jax train {command}{options}")
    elif arguments.verb == "collect":
        collect(arguments.task, arguments.rule, arguments.run_dirs)
    else:
        rows = read_rows(common.results_file(NAME))
        written = table(rows)
        print(written)
        (common.RESULTS / f"{NAME}.md").write_text(written)
        draw(common.RESULTS / f"{NAME}.png", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
