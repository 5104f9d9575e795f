"""Every algorithm goes on after an interruption as if there had been none, bit for bit."""

import dataclasses
import json
from pathlib import Path

import pytest

import mbpo_jax
from mbpo_jax.config import ALGORITHMS, Config
from mbpo_jax.files import read_rows
from mbpo_jax.presets import environment_preset
from mbpo_jax.training import driver
from tests.algorithms.switches import with_all_switches
from tests.choice import mostly_exhaustive

pytestmark = pytest.mark.usefixtures("undrawn")

# MBPO, which `test_driver` and `test_resume` interrupt, and whose state most of the others have,
# is not among them.
OF_EVERY_KIND = ("retrace", "policy_search", "mpc", "prioritized_sweeping")


class InterruptedOnce(driver.Interruption):
    """An interruption that is asked for while the first call of the compiled step runs."""

    looks = 0

    @property
    def requested(self) -> bool:
        self.looks += 1
        return self.looks > 1

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def settings(algorithm: str) -> Config:
    environment = "maze" if ALGORITHMS[algorithm].is_tabular else "pendulum"
    config = environment_preset(environment, "debug")
    planner = dataclasses.replace(config.planner, population=16, num_elites=4, horizon=5)
    search = dataclasses.replace(config.policy_search, horizon=10, num_rollouts=4)
    ilqr = dataclasses.replace(config.ilqr, horizon=5, iterations=2, replan_every=3)
    return dataclasses.replace(
        config, algorithm=algorithm, planner=planner, policy_search=search, ilqr=ilqr
    )


def evaluations(run_dir: Path) -> list[dict]:
    rows = read_rows(run_dir / "evals.jsonl")
    return [{k: v for k, v in row.items() if k != "wall_seconds"} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", mostly_exhaustive(ALGORITHMS, OF_EVERY_KIND.__contains__))
def test_an_interrupted_run_ends_as_an_uninterrupted_one(algorithm, monkeypatch, capsys):
    assert_resumes(settings(algorithm), monkeypatch, capsys)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_so_it_does_with_all_that_dhmbpo_may_have(monkeypatch, capsys):
    config = with_all_switches(settings("dhmbpo"))
    sac = dataclasses.replace(config.sac, catches_up=False)
    output = assert_resumes(dataclasses.replace(config, sac=sac), monkeypatch, capsys)
    saved = config.random_steps + config.steps_per_fit
    assert f"resuming at {saved:,} environment steps: broken" in output


@pytest.mark.slow
def test_so_it_does_after_two_interruptions_while_it_catches_up(monkeypatch, capsys):
    config = with_all_switches(settings("dhmbpo"))
    first = 3 * config.steps_per_fit
    config = dataclasses.replace(
        config, random_steps=first, total_env_steps=first + 2 * config.steps_per_fit
    )
    output = assert_resumes(config, monkeypatch, capsys, interruptions=2)
    assert output.count(f"resuming at {first:,} environment steps: broken") == 2
    each = config.steps_per_fit * config.sac.utd_ratio
    parts = [line for line in output.splitlines() if "catching up" in line]
    one_by_one = [f"catching up: {i * each:,} of {3 * each:,} updates" for i in range(3)]
    assert parts == [*one_by_one, *one_by_one]  # in one piece, and in three


def assert_resumes(config, monkeypatch, capsys, interruptions: int = 1) -> str:
    """Train in one piece and in several, and compare; return what was printed."""
    straight, broken = Path("straight"), Path("broken")
    assert mbpo_jax.train(config, straight).state == "finished"
    with monkeypatch.context() as patch:
        patch.setattr(driver, "Interruption", InterruptedOnce)
        for done in range(1, interruptions + 1):
            assert mbpo_jax.train(config, broken).state == "interrupted"
            status = json.loads((broken / "status.json").read_text())
            assert status["caught_up"] == (done if config.sac.catches_up else 0)
    assert mbpo_jax.train(config, broken).state == "finished"
    output = capsys.readouterr().out
    assert "resuming" in output
    metrics = [(run_dir / "metrics.jsonl").read_bytes() for run_dir in (straight, broken)]
    assert metrics[0] == metrics[1]
    assert evaluations(straight) == evaluations(broken)
    assert len(evaluations(straight)) == 3
    counts = [json.loads((run / "status.json").read_text()) for run in (straight, broken)]
    assert counts[0]["gradient_steps"] == counts[1]["gradient_steps"]
    return output
