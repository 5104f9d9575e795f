"""The tables of the published grid of value expansion, from rows whose numbers are known."""

import numpy as np
import pytest

from experiments import value_expansion_grid as grid
from experiments.common import RESULTS, results_file
from mbpo_jax.files import read_rows


def _rows(learner, horizon, returns):
    head = {"environment": "cartpole", "agent": "SAC", "learner": learner, "horizon": horizon}
    return [head | {"seed": seed, "mean_return": value} for seed, value in enumerate(returns)]


def test_what_is_finished_takes_the_place_of_older_rows(monkeypatch):
    common = {
        "environment": "cartpole", "sac.exploration_noise": None, "model": "learned", "seed": 0,
        "expansion.horizon": 3, "retrace.length": 6, "env_steps": 10, "final_return": 2.0,
        "diverged": False, "model/holdout_r2": None, "trained": True,
    }  # fmt: skip
    runs = [
        common | {"algorithm": "mve", "mean_return": 1.0},
        common | {"algorithm": "svg", "mean_return": 2.0, "model": "oracle"},
        common | {"algorithm": "retrace", "mean_return": 3.0, "sac.exploration_noise": 0.1},
        common | {"algorithm": "sac", "mean_return": 4.0, "trained": False},
    ]
    monkeypatch.setattr(grid, "read_sweep_rows", lambda sweep_dir: (runs, []))
    known = [*_rows("critic, learned", 3, [0.0]), *_rows("critic, learned", 1, [5.0])]
    found = {
        (row["agent"], row["learner"], row["horizon"]): row["mean_return"]
        for row in grid.collect("sweep", known)
    }
    assert found == {
        ("SAC", "critic, learned", 1): 5.0,
        ("SAC", "critic, learned", 3): 1.0,
        ("SAC", "actor, oracle", 3): 2.0,
        ("DDPG-like", "Retrace", 5): 3.0,
    }


def test_a_sweep_over_fits_says_how_long_they_are(monkeypatch):
    run = {
        "environment": "cartpole", "algorithm": "mve", "seed": 0, "expansion.horizon": 5,
        "fit.num_steps": 1000, "env_steps": 10, "mean_return": 1.0, "final_return": 2.0,
        "diverged": False, "model/holdout_r2": None, "trained": True,
    }  # fmt: skip
    monkeypatch.setattr(grid, "read_sweep_rows", lambda sweep_dir: ([run], []))
    (row,) = grid.collect("sweep")
    assert (row["agent"], row["learner"]) == ("SAC", "critic, learned, 1,000 steps a fit")


def test_seeds_are_compared_as_pairs():
    """Seeds that differ by far, all of which gain the same: the gain has no width."""
    spread = np.array([0.0, 100.0, 1000.0])
    rows = [
        *_rows("no expansion", 0, spread),
        *_rows("critic, learned", 1, spread + 10),
        *_rows("critic, learned", 3, spread + 11)[::-1],  # in whatever order they come
    ]
    (curves,) = grid.panels(rows).values()
    gains = grid.gain(curves["critic, learned"])
    assert gains == {1: pytest.approx((10, 10, 10)), 3: pytest.approx((1, 1, 1))}


def test_differences_are_of_what_both_have_at_a_horizon():
    rows = [
        *_rows("no expansion", 0, [1.0, 2.0]),
        *_rows("critic, learned", 1, [1.0, 2.0]),
        *_rows("critic, learned", 3, [1.0, 2.0]),
        *_rows("critic, oracle", 3, [4.0, 5.0]),
        *_rows("Retrace", 1, [0.0, 1.0]),
    ]
    lines = "\n".join(grid.tables(rows)).split("\n")
    assert "| critic, oracle - critic, learned |  | 3.0 [3.0, 3.0] |" in lines
    assert "| Retrace - critic, learned | -1.0 [-1.0, -1.0] |  |" in lines


def test_committed_tables_are_those_of_the_committed_rows():
    written = (RESULTS / f"{grid.NAME}.md").read_text()
    assert written == "\n".join(grid.tables(read_rows(results_file(grid.NAME))))
