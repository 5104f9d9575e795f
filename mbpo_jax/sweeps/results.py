"""What the runs of a sweep came to: tidy rows, and tables that SQL can be asked of.

Run directories are the truth; everything here is read from them anew.
"""

import contextlib
import io
import math
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mbpo_jax import config_io
from mbpo_jax.config import file_name
from mbpo_jax.errors import ConfigError, code_named
from mbpo_jax.files import (
    Row,
    disk_error,
    make_directory,
    read_last_rows,
    read_rows,
    replace_rows,
    writing,
)
from mbpo_jax.reports.figures import save_figure
from mbpo_jax.reports.statistics import area_under_curve
from mbpo_jax.sweeps.manifest import run_id, varied_fields
from mbpo_jax.sweeps.report import page
from mbpo_jax.sweeps.report.figures import report_figures
from mbpo_jax.sweeps.report.summary import MODEL_COLUMNS, variants_of
from mbpo_jax.sweeps.store import SWEEP_FILE, TRAINED, Unit, units_of
from mbpo_jax.training import logs, run_directory

if TYPE_CHECKING:
    from pandas import DataFrame  # which takes its time to load

LAST_SHARE = 0.1
"""Of a run's evaluations, over which its final return is averaged; one at least."""
REPORT = "report.html"
FIGURES = "figures"
ALL = 2**31 - 1
"""Rows and letters of an answer that are shown."""
NO_EVALUATIONS = """(select null::varchar id, null::bigint env_steps, null::bigint run,
    null::bigint seed, null::double return_mean, null::double return_std, null::double length_mean,
    null::double wall_seconds, null::boolean finite) where false"""
NO_METRICS = """(select null::varchar "group", null::bigint env_steps, null::bigint run,
    null::bigint seed) where false"""


def read_sweep_rows(sweep_dir: Path) -> tuple[list[Row], list[Row]]:
    """Return a row for each run of a sweep, and a row for each of its evaluations.

    Runs that have not begun are there, too, without results; those that diverged have the results
    of their last finite parameters. A return that is not finite counts as the lowest one of any run
    in that environment, and the evaluation's `finite` is false.

    Raises:
      ConfigError: it is no sweep directory.
    """
    return _sweep_rows(sweep_dir, _units(sweep_dir))


def _units(sweep_dir: Path) -> list[Unit]:
    units = units_of(sweep_dir)
    if not units:
        raise ConfigError(f"{sweep_dir} has no groups yet; give it to `mbpo-jax sweep`")
    return units


def _sweep_rows(sweep_dir: Path, units: Sequence[Unit]) -> tuple[list[Row], list[Row]]:
    swept = varied_fields([run for unit in units for run in unit.group.runs])
    fields = list(dict.fromkeys(path for paths in swept.values() for path in paths))
    written = [(unit, _rows(unit, logs.EVALS)) for unit in units]
    lowest = _lowest_returns(written)
    runs: dict[str, Row] = {}
    evaluations: list[Row] = []
    for unit, rows in written:
        state, size = unit.state, len(unit.group.runs)
        metrics = unit.path / logs.METRICS
        newest = read_last_rows(metrics, size) if metrics.exists() else []
        model = {row["run"]: row for row in newest}
        for index, config in enumerate(unit.group.runs):
            identity = run_id(config)
            if identity in runs:
                continue
            own = [row for row in rows if row["run"] == index]
            filled = _finite(own, lowest.get(config.env.name))
            evaluations += [{"id": identity, **row} for row in filled]
            values = config_io.flatten(config)
            runs[identity] = {
                "id": identity,
                "environment": config.env.name,
                "algorithm": config.algorithm,
                "seed": config.seed,
                **{field: values[field] for field in fields},
                "total_env_steps": config.total_env_steps,
                **_progress(own, size),
                **_results(filled),
                **{name: model.get(index, {}).get(name) for name in MODEL_COLUMNS},
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


def _progress(rows: Sequence[Row], group_size: int) -> Row:
    """Return how far a run is, by its evaluations as they were written."""
    if not rows:
        nothing = dict.fromkeys(("wall_seconds", "run_seconds"))
        return {"env_steps": 0, **nothing, "diverged": False}
    last = rows[-1]
    return {
        "env_steps": last["env_steps"],
        "wall_seconds": last["wall_seconds"],
        "run_seconds": last["wall_seconds"] / group_size,
        "diverged": bool(last.get("diverged")) or last["return_mean"] is None,
    }


def _results(rows: Sequence[Row]) -> Row:
    """Return what a run's evaluations come to; what was not trained yet is no result."""
    rows = [row for row in rows if row["env_steps"] > 0]
    if not rows:
        return dict.fromkeys(("final_return", "mean_return"))
    steps = np.array([row["env_steps"] for row in rows], float)
    returns = np.array([row["return_mean"] for row in rows], float)
    last = max(round(LAST_SHARE * len(rows)), 1)
    return {
        "final_return": float(np.mean(returns[-last:])),
        "mean_return": float(area_under_curve(steps, returns)),
    }


def connect(sweep_dir: Path, *, metrics: bool = True):
    """Return a DuckDB connection with the tables `runs`, `evaluations` and `metrics`.

    The first two hold the rows of `read_sweep_rows`; `metrics` those of all groups, which are
    joined to runs by `"group"` and `run`.

    Args:
      sweep_dir: of the sweep.
      metrics: make that table, which can be large.
    """
    import duckdb

    units = _units(sweep_dir)
    runs, evaluations = _sweep_rows(sweep_dir, units)
    connection = duckdb.connect()
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in {"runs": runs, "evaluations": evaluations}.items():
            path = Path(folder, f"{name}.jsonl")
            replace_rows(path, rows)
            source = _rows_of([path]) if rows else NO_EVALUATIONS
            connection.execute(f"create table {name} as from {source}")
    if metrics:
        paths = [unit.path / logs.METRICS for unit in units]
        begun = [path for path in paths if path.exists() and path.stat().st_size]
        source = NO_METRICS
        if begun:
            # A group's directory is named as the group is.
            named = "string_split(filename, '/')[-2] as \"group\", * exclude filename"
            more = ("filename=true", "ignore_errors=true")
            # A last line that is torn makes a row of nothing.
            source = f"(select {named} from {_rows_of(begun, *more)} where env_steps is not null)"
        connection.execute(f"create table metrics as from {source}")
    return connection


def _rows_of(paths: Sequence[Path], *more: str) -> str:
    """Return what DuckDB reads row files with."""
    quoted = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    options = ("format='newline_delimited'", "sample_size=-1", "union_by_name=true")
    return f"read_json([{quoted}], {', '.join((*options, *more))})"


def _connect_for(sweep_dir: Path, sql: str):
    """Return a connection with what a query may ask for."""
    return connect(sweep_dir, metrics="metrics" in sql.lower())


@contextlib.contextmanager
def _query_checked() -> Iterator[None]:
    """Say what DuckDB finds wrong with a query as a ConfigError."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise ConfigError(f"sql: {error}") from error


def table(sweep_dir: Path, sql: str = "select * from runs") -> "DataFrame":
    """Return the answer to a query as a pandas data frame.

    Raises:
      ConfigError: the query is wrong or has no answer.
    """
    with _query_checked():
        found = _connect_for(sweep_dir, sql).sql(sql)
        if found is None:
            raise ConfigError(f"sql: {sql!r} has no answer; use a select")
        return found.df()


def export(sweep_dir: Path, path: Path, sql: str = "select * from runs") -> None:
    """Write the answer to a query to a file, as its ending says: .csv, .parquet or .json.

    Raises:
      ConfigError: the query is wrong, or the file has another ending.
      DiskError: the file cannot be written.
    """
    import duckdb

    formats = {".csv": "csv", ".parquet": "parquet", ".json": "json"}
    if path.suffix not in formats:
        raise ConfigError(f"export: {path} ends in none of {', '.join(formats)}")
    partial = path.with_name(f".{path.name}.tmp")
    quoted = str(partial).replace("'", "''")
    try:
        _connect_for(sweep_dir, sql).execute(
            f"copy ({sql.strip().rstrip(';')}) to '{quoted}' (format {formats[path.suffix]})"
        )
        with writing(path):
            partial.replace(path)
    except duckdb.Error as error:
        if code := code_named(str(error)):
            raise disk_error(path, code) from error
        raise ConfigError(f"export: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def answer(sweep_dir: Path, sql: str) -> str:
    """Return the answer to a query as text, all of it.

    Raises:
      ConfigError: the query is wrong.
    """
    with _query_checked():
        found = _connect_for(sweep_dir, sql).sql(sql)
        if found is None:
            return ""
        with contextlib.redirect_stdout(io.StringIO()) as text:
            found.show(max_rows=ALL, max_width=ALL, max_col_width=ALL)
    return text.getvalue().rstrip()


def write_report(sweep_dir: Path, figure_format: Collection[str] = ()) -> Path:
    """Write the report into a sweep directory, and return its path.

    Args:
      sweep_dir: of the sweep.
      figure_format: formats in which its figures are written, besides PNG, into `FIGURES`. Those
        that are there are drawn anew without it.

    Raises:
      ConfigError: it is no sweep directory.
    """
    units = _units(sweep_dir)
    rows, evaluations = _sweep_rows(sweep_dir, units)
    source = sweep_dir / SWEEP_FILE
    path = sweep_dir / REPORT
    page.write_page(
        path,
        f"Sweep {sweep_dir.resolve().name}",
        rows,
        evaluations,
        [{"group": unit.name, **failure} for unit in units for failure in unit.failures],
        [found for unit in units if (found := run_directory.read_environment(unit.path))],
        source.read_text() if source.exists() else "",
    )
    if figure_format or (sweep_dir / FIGURES).is_dir():  # what is there stays up to date
        make_directory(sweep_dir / FIGURES)
        for name, figure in report_figures(variants_of(rows), evaluations).items():
            save_figure(sweep_dir / FIGURES / f"{file_name(name)}.png", figure, figure_format)
    return path
