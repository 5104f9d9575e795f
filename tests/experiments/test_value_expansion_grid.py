"""The tables of the published grid of value expansion, from rows whose numbers are known."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import value_expansion_grid as grid
from experiments.common import RESULTS, results_file
from mbpo_jax import preset
from mbpo_jax.files import read_rows


def _rows(learner, horizon, returns):
    head = {"environment": "cartpole", "agent": "SAC", "learner": learner, "horizon": horizon}
    return [head | {"seed": seed, "mean_return": value} for seed, value in enumerate(returns)]


def _config(algorithm, fit=250, model="learned", **changes):
    config = preset("cartpole", algorithm=algorithm)
    parts = {"fit": {"num_steps": fit}, **changes}
    changed = {
        part: dataclasses.replace(getattr(config, part), **fields) for part, fields in parts.items()
    }
    return dataclasses.replace(config, algorithm=algorithm, model=model, **changed)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (_config("sac"), ("SAC", "no expansion", 0)),
        (_config("mve", expansion={"horizon": 3}), ("SAC", "critic, learned", 3)),
        (
            _config("mve", expansion={"horizon": 5}, fit=1000),
            ("SAC", "critic, learned, 1,000 steps a fit", 5),
        ),
        (
            _config("svg", expansion={"horizon": 3}, fit=1000, model="oracle"),
            ("SAC", "actor, oracle", 3),
        ),
        (
            _config("retrace", retrace={"length": 6}, sac={"exploration_noise": 0.1}),
            ("DDPG-like", "Retrace", 5),
        ),
    ],
)
def test_a_run_is_told_by_its_settings(config, expected):
    agent, learner, horizon = expected
    assert grid.identify(config) == {
        "environment": "cartpole", "agent": agent, "learner": learner, "horizon": horizon
    }  # fmt: skip


def test_what_is_finished_takes_the_place_of_older_rows(monkeypatch):
    configs = [_config("mve", expansion={"horizon": 3}), _config("sac")]
    group = SimpleNamespace(runs=configs)
    monkeypatch.setattr(grid, "units_of", lambda _: [SimpleNamespace(name="a", group=group)])
    common = {
        "group": "a", "seed": 0, "env_steps": 10, "final_return": 2.0, "diverged": False,
        "model/holdout_r2": None,
    }  # fmt: skip
    runs = [
        common | {"run": 0, "mean_return": 1.0, "trained": True},
        common | {"run": 1, "mean_return": 4.0, "trained": False},
    ]
    monkeypatch.setattr(grid, "read_sweep_rows", lambda _: (runs, []))
    known = [*_rows("critic, learned", 3, [0.0]), *_rows("critic, learned", 1, [5.0])]
    found = [(row["horizon"], row["mean_return"]) for row in grid.collect("sweep", known)]
    assert found == [(1, 5.0), (3, 1.0)]


def test_seeds_are_compared_as_pairs():
    """Seeds that differ by far, all of which gain the same: the gain has no width."""
    spread = np.array([0.0, 100.0, 1000.0])
    rows = [
        *_rows("no expansion", 0, spread),
        *_rows("critic, learned", 1, spread + 10),
        *_rows("critic, learned", 3, spread + 11)[::-1],  # in whatever order they come
    ]
    (curves,) = grid.panels(rows).values()
    gains = grid.gain(curves["critic, learned"], [0, 1, 3, 5])
    assert gains == {1: pytest.approx((10, 10, 10)), 3: pytest.approx((1, 1, 1))}


def test_where_there_is_nothing_to_compare_there_is_no_panel():
    rows = _rows("no expansion", 0, [1.0])
    assert grid.panels(rows) == {}
    assert grid.panels(_rows("critic, learned", 1, [1.0])) == {}
    assert len(grid.panels([*rows, *_rows("critic, learned", 1, [1.0])])) == 1


def test_what_has_no_horizon_before_has_no_gain_over_it():
    rows = [
        *_rows("no expansion", 0, [1.0, 2.0]),
        *_rows("critic, learned", 1, [1.0, 2.0]),
        *_rows("critic, learned, 1,000 steps a fit", 5, [4.0, 5.0]),
    ]
    (curves,) = grid.panels(rows).values()
    points = curves["critic, learned, 1,000 steps a fit"]
    assert list(points) == [5]
    assert grid.gain(points, [0, 1, 5]) == {}


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
