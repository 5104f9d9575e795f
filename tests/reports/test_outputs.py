"""How well each output is predicted, by its name."""

import pytest

from mbpo_jax.reports.model_error import model_error_figure
from mbpo_jax.reports.outputs import explained_shares

SHARE = "model/holdout_r2"


def row(run: int, env_steps: int, **shares) -> dict:
    values = {f"{SHARE}/{name}": value for name, value in shares.items()}
    return {"env_steps": env_steps, "run": run, "seed": run, SHARE: 0.5, **values}


def test_the_last_fit_of_every_run_counts_by_the_names_of_components():
    rows = [
        row(0, 100, reward=0.1, observation_0=0.2, observation_1=0.3),
        *(row(run, 200, observation_1=0.9, observation_0=0.8, reward=0.7 + run) for run in (0, 1)),
        {"env_steps": 300, "run": 0, "seed": 0, "sac/alpha": 1.0},
    ]
    shares = explained_shares(rows, ["cos θ"])
    assert list(shares) == ["reward", "cos θ", "observation 1"]
    assert shares["reward"] == [0.7, 1.7]
    assert shares["cos θ"] == [0.8, 0.8]
    assert explained_shares(rows[-1:]) == explained_shares([]) == {}


def test_of_many_components_the_worst_are_named_by_their_numbers():
    worst = {"worst_1": -0.3, "worst_1_component": 11.0, "worst_2": 0.1, "worst_2_component": 3.0}
    names = [f"joint {i}" for i in range(12)]
    shares = explained_shares([row(0, 10, reward=0.9, quantile_50=0.8, **worst)], names)
    assert shares == {"reward": [0.9], "joint 3": [0.1], "joint 11": [-0.3]}


@pytest.mark.parametrize("told", [True, False])
def test_the_model_s_figure_has_a_panel_of_them_where_they_are_told(told):
    rows = [row(0, 10, reward=0.9, observation_0=-3.0) if told else row(0, 10)]
    rows[0]["model/k_step_error_1"] = 0.1
    rows[0]["model/k_step_error_2"] = 0.2
    panels = model_error_figure(rows, "title", ["cos θ"]).axes
    assert len(panels) == 1 + told
    if told:
        assert [text.get_text() for text in panels[1].get_yticklabels()] == ["reward", "cos θ"]
        (points,) = [line for line in panels[1].lines if line.get_marker() == "o"]
        assert list(points.get_xdata()) == [0.9, -0.5]  # what is far off stays on the page
