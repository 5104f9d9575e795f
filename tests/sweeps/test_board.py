"""What a person sees while a sweep is trained."""

import io

import pytest
from rich.console import Console

from mbpo_jax.files import append_rows
from mbpo_jax.sweeps.board import table_of
from tests.sweeps.processes import TINY, laid_out


@pytest.mark.parametrize(
    ("returns", "told"),
    [
        ([-3.0, 1500.0, None], "-3.0 to 1,500.0"),
        ([2.0, 2.0, 2.0], "2.0"),
        ([None, None, None], "-"),
    ],
)
def test_a_group_of_unlike_runs_shows_from_where_to_where_they_are(tmp_path, returns, told):
    content = TINY | {"seeds": 1, "grid": {"sac.learning_rate": [1e-4, 3e-4, 1e-3]}}
    (unit,) = units = laid_out(tmp_path, content)
    row = {"env_steps": 50, "seed": 0, "wall_seconds": 10.0}
    rows = [{**row, "run": i, "return_mean": value} for i, value in enumerate(returns)]
    append_rows(unit.path / "evals.jsonl", rows)
    console = Console(file=io.StringIO(), width=120)
    console.print(table_of(units))
    line = console.file.getvalue().splitlines()[1]
    assert f" {told}  " in line
