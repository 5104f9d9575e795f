"""What the runs of a sweep came to: tidy rows, and tables that SQL can be asked of.

Run directories are the truth; everything here is read from them anew.
"""

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mbpo_jax import config_io
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import Row, read_rows, replace_rows
from mbpo_jax.reports import sweep_page
from mbpo_jax.reports.statistics import area_under_curve
from mbpo_jax.reports.sweep_summary import MODEL_COLUMNS
from mbpo_jax.sweeps.manifest import run_id, varied_fields
from mbpo_jax.sweeps.store import SWEEP_FILE, TRAINED, Unit, units_of
from mbpo_jax.training import logs, run_directory

LAST_SHARE = 0.1
"""Of a run's evaluations, over which its final return is averaged; one at least."""
REPORT = "report.html"


def read_sweep_rows(sweep_dir: Path) -> tuple[list[Row], list[Row]]:
    """Return a row for each run of a sweep, and a row for each of its evaluations.

    Runs that have not begun are there, too, without results; those that diverged have the results
    of their last finite parameters. A return that is not finite counts as the lowest one of any run
    in that environment, and the evaluation's `finite` is false.

    Raises:
      ConfigError: it is no sweep directory.
    """
    units = units_of(sweep_dir)
    if not units:
        raise ConfigError(f"{sweep_dir} has no groups yet; give it to `mbpo-jax sweep`")
    swept = varied_fields([run for unit in units for run in unit.group.runs])
    fields = list(dict.fromkeys(path for paths in swept.values() for path in paths))
    written = [(unit, _rows(unit, logs.EVALS)) for unit in units]
    lowest = _lowest_returns(written)
    runs: dict[str, Row] = {}
    evaluations: list[Row] = []
    for unit, rows in written:
        newest = {row["run"]: row for row in _rows(unit, logs.METRICS)}
        state, size = unit.state, len(unit.group.runs)
        for index, config in enumerate(unit.group.runs):
            identity = run_id(config)
            if identity in runs:
                continue
            own = _finite([r for r in rows if r["run"] == index], lowest.get(config.env.name))
            evaluations += [{"id": identity, **row} for row in own]
            values = config_io.flatten(config)
            runs[identity] = {
                "id": identity,
                "environment": config.env.name,
                "algorithm": config.algorithm,
                "seed": config.seed,
                **{field: values[field] for field in fields},
                "total_env_steps": config.total_env_steps,
                **_results(own, size),
                **{name: newest.get(index, {}).get(name) for name in MODEL_COLUMNS},
                "state": state,
                "trained": state in TRAINED,
                "group": unit.name,
                "run": index,
                "directory": str(unit.path.relative_to(sweep_dir)),
            }
    return list(runs.values()), evaluations


def _rows(unit: Unit, name: str) -> list[Row]:
    return read_rows(unit.path / name) if (unit.path / name).exists() else []


def _lowest_returns(written: Sequence[tuple[Unit, Sequence[Row]]]) -> dict[str, float]:
    """Return the lowest finite return that was met in each environment."""
    lowest: dict[str, float] = {}
    for unit, rows in written:
        name = unit.group.config.env.name
        found = [row["return_mean"] for row in rows if row["return_mean"] is not None]
        if found:
            lowest[name] = min(*found, lowest.get(name, math.inf))
    return lowest


def _finite(rows: Sequence[Row], lowest: float | None) -> list[Row]:
    """Return a run's evaluations with a number for every return; none if no number is known."""
    if lowest is None:
        return []
    filled = [{**row, "finite": row["return_mean"] is not None} for row in rows]
    return [row if row["finite"] else {**row, "return_mean": lowest} for row in filled]


def _results(rows: Sequence[Row], group_size: int) -> Row:
    """Return what a run's evaluations come to."""
    found: Row = {"env_steps": 0, "diverged": False}
    found |= dict.fromkeys(("final_return", "mean_return", "wall_seconds", "run_seconds"))
    if not rows:
        return found
    steps = np.array([row["env_steps"] for row in rows], float)
    returns = np.array([row["return_mean"] for row in rows], float)
    last = max(round(LAST_SHARE * len(rows)), 1)
    seconds = rows[-1]["wall_seconds"]
    return found | {
        "env_steps": int(steps[-1]),
        "final_return": float(np.mean(returns[-last:])),
        "mean_return": float(area_under_curve(steps, returns)),
        "wall_seconds": seconds,
        "run_seconds": seconds / group_size,
        "diverged": bool(rows[-1].get("diverged", False)) or not rows[-1]["finite"],
    }


def environment_of(sweep_dir: Path) -> Row:
    """Return versions, devices and machine of the first group that began; {} if none did."""
    for unit in units_of(sweep_dir):
        path = unit.path / run_directory.ENVIRONMENT
        if path.exists():
            return json.loads(path.read_text())
    return {}


def connect(sweep_dir: Path):
    """Return a DuckDB connection with the tables `runs`, `evaluations` and `metrics`.

    The first two hold the rows of `read_sweep_rows`; `metrics` those of all groups, which are
    joined to runs by `"group"` and `run`.
    """
    import duckdb

    runs, evaluations = read_sweep_rows(sweep_dir)
    metrics = [
        {"group": unit.name, **row}
        for unit in units_of(sweep_dir)
        for row in _rows(unit, logs.METRICS)
    ]
    connection = duckdb.connect()
    tables = {"runs": runs, "evaluations": evaluations, "metrics": metrics}
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in tables.items():
            path = Path(folder, f"{name}.jsonl")
            replace_rows(path, rows)
            quoted = str(path).replace("'", "''")
            source = (
                f"read_json('{quoted}', format='newline_delimited', sample_size=-1)"
                if rows
                else "(values (NULL)) as nothing(id) where false"
            )
            connection.execute(f"create table {name} as select * from {source}")
    return connection


def table(sweep_dir: Path, sql: str = "select * from runs"):
    """Return the answer to a query as a pandas data frame.

    Raises:
      ConfigError: the query is wrong, or pandas is not installed.
    """
    import duckdb

    try:
        return connect(sweep_dir).execute(sql).df()
    except duckdb.Error as error:
        raise ConfigError(f"sql: {error}") from error
    except ImportError as error:
        raise ConfigError("pandas is not installed; pip install pandas") from error


def export(sweep_dir: Path, path: Path, sql: str = "select * from runs") -> None:
    """Write the answer to a query to a file, as its ending says: .csv, .parquet or .json.

    Raises:
      ConfigError: the query is wrong, or the file has another ending or cannot be written.
    """
    import duckdb

    formats = {".csv": "csv", ".parquet": "parquet", ".json": "json"}
    if path.suffix not in formats:
        raise ConfigError(f"export: {path} ends in none of {', '.join(formats)}")
    partial = path.with_name(f".{path.name}.tmp")
    quoted = str(partial).replace("'", "''")
    try:
        connect(sweep_dir).execute(
            f"copy ({sql.strip().rstrip(';')}) to '{quoted}' (format {formats[path.suffix]})"
        )
        partial.replace(path)
    except (duckdb.Error, OSError) as error:
        raise ConfigError(f"export: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def answer(sweep_dir: Path, sql: str) -> str:
    """Return the answer to a query as text.

    Raises:
      ConfigError: the query is wrong.
    """
    import duckdb

    try:
        found = connect(sweep_dir).sql(sql)
        return "" if found is None else str(found)
    except duckdb.Error as error:
        raise ConfigError(f"sql: {error}") from error


def write_report(sweep_dir: Path) -> Path:
    """Write the report into a sweep directory, and return its path.

    Raises:
      ConfigError: it is no sweep directory.
    """
    rows, evaluations = read_sweep_rows(sweep_dir)
    failures = [{"group": unit.name, **f} for unit in units_of(sweep_dir) for f in unit.failures]
    source = sweep_dir / SWEEP_FILE
    path = sweep_dir / REPORT
    sweep_page.write_page(
        path,
        f"Sweep {sweep_dir.resolve().name}",
        rows,
        evaluations,
        failures,
        environment_of(sweep_dir),
        source.read_text() if source.exists() else "",
    )
    return path
