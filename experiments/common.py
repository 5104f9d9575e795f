"""What the experiments share: every combination is a run directory, so that they can be resumed."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mbpo_jax.config import Config
from mbpo_jax.exit_codes import OF_OUTCOME
from mbpo_jax.files import Row, read_rows, replace_rows

RESULTS = Path(__file__).parent / "results"


def as_published(config: Config) -> Config:
    """Return a configuration with MBPO's share of real rows, where a preset has another since."""
    rollout = dataclasses.replace(config.rollout, real_ratio=0.05)
    return dataclasses.replace(config, rollout=rollout)


class Entry(NamedTuple):
    """One combination of an experiment.

    Attributes:
      environment: its panel in the figure.
      label: what is compared.
      config: what is trained.
    """

    environment: str
    label: str
    config: Config


def run_directory(experiment: str, entry: Entry) -> Path:
    """Return where a combination is trained."""
    name = f"{entry.environment}-{entry.label}".lower()
    return Path("runs") / experiment / name.translate(str.maketrans(" ", "-", ",="))


def results_file(experiment: str) -> Path:
    """Return where the raw rows of an experiment are kept."""
    return RESULTS / f"{experiment}.jsonl"


def train(experiment: str, entries: Iterable[Entry]) -> int:
    """Train every combination that is not finished; return 0 when all are over, else 75."""
    import mbpo_jax
    from mbpo_jax.training import devices

    devices.use_compilation_cache(devices.default_cache_directory())
    for entry in entries:
        print(f"--- {entry.environment}: {entry.label}", flush=True)
        run = mbpo_jax.train(entry.config, run_directory(experiment, entry), command=sys.argv)
        if run.state == "interrupted":  # one that diverged says so in its rows, and is a result
            return OF_OUTCOME["interrupted"]
    return 0


def collect(experiment: str, entries: Sequence[Entry]) -> list[Row]:
    """Put the evaluations of these combinations in the place of their old rows, and return all.

    Each row names its environment and learner. Combinations that were not trained here keep the
    rows they have.
    """
    raw = results_file(experiment)
    rows = read_rows(raw) if raw.exists() else []
    for entry in entries:
        path = run_directory(experiment, entry) / "evals.jsonl"
        if not path.exists():
            continue
        head = {"environment": entry.environment, "learner": entry.label}
        rows = [row for row in rows if not head.items() <= row.items()]
        rows += [head | row for row in read_rows(path)]
    order = {entry[:2]: place for place, entry in enumerate(entries)}
    rows.sort(key=lambda row: order.get((row["environment"], row["learner"]), len(order)))
    replace_rows(raw, rows)
    return rows


def replace_part(experiment: str, part: str, rows: Iterable[Row]) -> None:
    """Put new rows of one part of an experiment in the place of its old ones."""
    raw = results_file(experiment)
    old = read_rows(raw) if raw.exists() else []
    new = [{"part": part, **row} for row in rows]
    replace_rows(raw, [row for row in old if row["part"] != part] + new)


def mean_returns(rows: Sequence[Row]) -> np.ndarray:
    """Return the evaluation return of each run, averaged over training, `[R]`."""
    rows = [row for row in rows if row["env_steps"] > 0]
    runs = sorted({row["run"] for row in rows})
    return np.array(
        [np.mean([row["return_mean"] for row in rows if row["run"] == run]) for run in runs]
    )


def markdown(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def panels(rows: Iterable[Row]) -> dict[str, dict[str, list[Row]]]:
    """Group rows by environment and learner, as the figures take them."""
    grouped: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        grouped.setdefault(row["environment"], {}).setdefault(row["learner"], []).append(row)
    return grouped


def run(
    experiment: str,
    entries: Sequence[Entry],
    report: Callable[[list[Row]], None],
    *,
    draw_only: bool,
) -> int:
    """Train the combinations and report all rows, or only report those that are committed.

    Returns:
      The exit code.
    """
    if draw_only:
        report(read_rows(results_file(experiment)))
        return 0
    code = train(experiment, entries)
    if code == 0:
        report(collect(experiment, entries))
    return code


def command(
    experiment: str,
    description: str,
    environments: Iterable[str],
    entries: Callable[[Sequence[str], int], Sequence[Entry]],
    report: Callable[[list[Row]], None],
) -> int:
    """Be the command of an experiment whose combinations are of environments and seeds.

    Args:
      experiment: its name.
      description: for `--help`.
      environments: those to choose from; all of them if none is chosen.
      entries: `(environments, num_seeds) -> combinations`.
      report: told all rows.

    Returns:
      The exit code.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--environment", action="append", choices=list(environments))
    parser.add_argument("--num-seeds", type=int, default=6)
    parser.add_argument("--draw-only", action="store_true", help="draw the committed rows again")
    arguments = parser.parse_args()
    chosen = entries(arguments.environment or list(environments), arguments.num_seeds)
    return run(experiment, chosen, report, draw_only=arguments.draw_only)
