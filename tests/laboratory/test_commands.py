"""The command `variance`: what it writes, and what it refuses."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mbpo_jax
from mbpo_jax import cli
from mbpo_jax.config import EstimatorConfig, StudyConfig
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import read_rows
from mbpo_jax.laboratory import commands
from mbpo_jax.presets import environment_preset

SMALL = StudyConfig(
    estimators=("rp", "lr_value", "svg"),
    horizons=(1, 2),
    batch_sizes=(4,),
    batches=32,
    reference_batches=16,
    reference_batch_size=16,
    resamples=100,
)


@pytest.fixture(autouse=True)
def _double_precision():
    """Train and measure runs in the precision that the command line has, unlike this folder."""


@pytest.mark.slow
def test_a_study_writes_rows_figures_and_one_page():
    command = "variance --problem lq --estimators rp,lr --horizons 1,2 --batches 32"
    arguments = [*command.split(), "--batch-sizes", "4,8", "--out", "found"]
    done = subprocess.run(
        [sys.executable, "-m", "mbpo_jax", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    out = Path("found")
    rows = read_rows(out / "estimates.jsonl")
    assert len(rows) == 8
    assert {row["dtype"] for row in rows} == {"float64"}
    table = list(csv.DictReader((out / "estimates.csv").read_text().splitlines()))
    assert [float(row["flops"]) for row in table] == [row["flops"] for row in rows]
    assert json.loads((out / "study.json").read_text())["command"].startswith("mbpo-jax variance")
    page = (out / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    figures = {path.stem for path in out.glob("*.png")}
    assert figures == {
        *("variance", "efficiency", "cosine", "steps", "sources", "stability", "slice")
    }
    assert page.count("<svg") == len(figures)
    assert "H = 2, B = 8: rp has the least mean squared error" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "give one of --problem NAME and --run RUN_DIR"),
        ("--problem lq --run here", "give one of --problem NAME and --run RUN_DIR"),
        (
            "--problem lqq",
            "problem: 'lqq' is not known (one of your own would be module:function); did you mean",
        ),
        ("--problem lq --beta 2", "lq has no setting 'beta'"),
        (
            "--problem lq --estimators rpp",
            "estimators[0]: 'rpp' is not known (one of your own would be module:function); did",
        ),
        ("--problem lq --horizons 0", "horizons[0]: 0 is too small"),
        ("--problem lq --horizons one", "horizons: 'one' is no list of whole numbers"),
        ("--problem chaotic_rnn --estimators svg", "svg needs a critic"),
        ("--problem lq --estimator.window 0", "window: 0 is too small"),
        ("--problem heaviside --width 0", "width: 0.0 cannot be; use a finite number above 0"),
        ("--problem cosine --frequency nan", "frequency: nan cannot be; use a finite number"),
        ("--problem lq --model both", "--index and --model belong to --run"),
        (
            "--run x --system true",
            "--system is called --model: learned, oracle (once true) or both",
        ),
        ("--run nowhere --beta 2", "settings of problems belong to --problem"),
        ("--run nowhere", "nowhere is no run directory"),
    ],
)
def test_bad_input_gets_one_message_and_leaves_nothing_behind(arguments, message, capsys):
    precision = ["--precision", "float32"] if "--problem" in arguments else []
    assert cli.main(["variance", *arguments.split(), *precision]) == 2
    assert message in capsys.readouterr().err
    assert not list(Path().iterdir())


@pytest.fixture
def run(undrawn) -> Path:
    """Train a small run."""
    assert mbpo_jax.train(environment_preset("pendulum", "debug"), Path("run")).state == "finished"
    return Path("run")


@pytest.mark.exhaustive
def test_a_run_is_measured_in_the_truth(run):
    assert len(measured(run, "oracle")) == 6


def measured(run: Path, model: str) -> list[dict]:
    """Measure, and return the rows that were written."""
    arguments = run, 0, model, SMALL, EstimatorConfig(), None, "command"
    assert commands.measure_run(*arguments) == 0
    out = run / f"gradients-{model}"
    assert (out / "split.png").exists() == (model == "both")
    return read_rows(out / "estimates.jsonl")


@pytest.mark.slow
def test_a_run_is_measured_in_its_model_and_that_against_the_truth(run):
    assert len(measured(run, "learned")) == 6
    rows = measured(run, "both")
    assert len(rows) == 6
    known = [row for row in rows if not row["heavy_tailed"]]
    assert known
    for row in known:
        parts = ("model_bias", "estimator_bias", "cross", "variance")
        total = sum(row[f"split_{part}"] for part in parts)
        assert row["split_total"] == pytest.approx(total)
        assert row["split_variance"] == pytest.approx(row["variance"], rel=1e-6)
    with pytest.raises(ConfigError, match="run: 3 is not there; use 0 to 0"):
        commands.measure_run(run, 3, "learned", SMALL, EstimatorConfig(), None, "command")


@pytest.mark.slow
def test_a_run_without_a_model_or_without_a_critic_is_told_apart(undrawn):
    for algorithm, message in (
        ("sac", "has no learned model; use --model oracle"),
        ("policy_search", "policy_search has no actor and critic"),
    ):
        config = environment_preset("pendulum", "debug")
        config = type(config)(**{**config.__dict__, "algorithm": algorithm})
        assert mbpo_jax.train(config, Path(algorithm)).state == "finished"
        with pytest.raises(ConfigError, match=message):
            arguments = Path(algorithm), 0, "learned", SMALL, EstimatorConfig(), None, "command"
            commands.measure_run(*arguments)
