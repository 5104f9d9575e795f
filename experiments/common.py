"""What the experiments share: every combination is a run directory, so that they can be resumed."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

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
