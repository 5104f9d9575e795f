"""A whole run on MJX, whose states hold what no other backend has: arrays without elements."""

import json
from pathlib import Path

import pytest

from mbpo_jax.cli import main
from mbpo_jax.files import read_rows


@pytest.mark.exhaustive
@pytest.mark.brax
@pytest.mark.timeout(600)
def test_a_run_on_mjx_trains_to_its_end_and_can_be_looked_at(capsys):
    options = ["--preset", "debug", "--env.backend", "mjx", "--run-dir", "run"]
    assert main(["train", "inverted_pendulum", *options]) == 0
    assert json.loads(Path("run/status.json").read_text())["state"] == "finished"
    assert [row["env_steps"] for row in read_rows(Path("run/evals.jsonl"))] == [0, 150, 200]
    assert Path("run/rollout.html").exists()
    assert main(["eval", "run", "--episodes", "2"]) == 0
    assert "at 200 steps" in capsys.readouterr().out
