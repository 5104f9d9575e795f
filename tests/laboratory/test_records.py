"""What is said of estimators and problems, against them; and those of one's own."""

import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from mbpo_jax import cli
from mbpo_jax.config import (
    ESTIMATORS,
    PROBLEMS,
    EstimatorConfig,
    StudyConfig,
    TrackingConfig,
    estimator_readers,
    unread_settings,
)
from mbpo_jax.errors import ConfigError
from mbpo_jax.laboratory.estimators.catalogue import draw_batches, estimate_batches, load_estimator
from mbpo_jax.laboratory.measures.study import study
from mbpo_jax.laboratory.problems.catalogue import make_problem
from mbpo_jax.laboratory.problems.problem import Problem

DOCS = Path(__file__).parents[2] / "docs" / "gradients.md"


class Recording:
    """Settings that note which of them are read."""

    def __init__(self) -> None:
        self.read: set[str] = set()

    def __getattr__(self, name: str):
        self.read.add(name)
        return getattr(EstimatorConfig(), name)


def trace(name: str, problem: Problem) -> set[str]:
    """Trace an estimator, and return the settings that it reads."""
    settings = Recording()
    estimator = load_estimator(name)

    def estimate(key: jax.Array) -> jax.Array:
        noise = draw_batches(key, name, problem, 4, 2, 4)
        if not estimator.record.over_batches:
            noise = jax.tree.map(lambda x: x[0], noise)
        return estimator.estimate(settings, problem.params, problem, noise).gradient

    shape = jax.eval_shape(estimate, jax.random.key(0)).shape
    assert shape == ((2,) if estimator.record.over_batches else ()) + problem.params.shape
    return settings.read


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_reads_and_needs_what_its_record_says_and_nothing_else(name):
    record, problem = ESTIMATORS[name], make_problem("lq_noisy")
    assert trace(name, problem) == set(record.uses)
    assert load_estimator(name).record is record
    lacks = {
        "critic": problem._replace(critic=None),
        "noisy system": make_problem("lq"),
    }
    for need, without in lacks.items():
        if need in record.needs:
            with pytest.raises((AssertionError, AttributeError)):
                trace(name, without)
        else:
            trace(name, without)


def test_settings_say_in_their_help_who_reads_them():
    source = inspect.getsource(EstimatorConfig)
    helps = re.findall(r"    (\w+): [^\n]*\n    \"\"\"(.*?)\"\"\"", source, re.DOTALL)
    assert [name for name, _ in helps] == [f.name for f in dataclasses.fields(EstimatorConfig)]
    for name, text in helps:
        assert re.findall(r"`(\w+)`", text.partition(":")[0]) == estimator_readers(name)


def test_the_documentation_has_a_row_for_every_estimator_and_names_every_problem():
    text = DOCS.read_text()
    rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert set(rows) == set(ESTIMATORS)
    assert len(rows) == len(ESTIMATORS)
    named = text.partition("## Problems")[2]
    assert {name for name in PROBLEMS if f"`{name}`" not in named} == set()


@pytest.mark.parametrize("config", [StudyConfig, TrackingConfig])
def test_names_of_estimators_are_checked_against_the_records(config):
    assert config(estimators=("all",)).estimators == ("all",)
    assert config(estimators=("mine:make",)).estimators == ("mine:make",)
    with pytest.raises(ConfigError, match=r"estimators\[1\]: 'lr_ge' is not known .* lr_gae"):
        config(estimators=("rp", "lr_ge"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["rp"], "estimator.window: rp does not read it; leave it out, or use one that does: svg"),
        (["rp", "q"], "estimator.window: none of rp, q reads it"),
        (["rp", "svg"], None),
        (["all"], None),
        (["mine:make"], None),
    ],
)
def test_settings_that_no_chosen_estimator_reads_are_named(names, message):
    found = unread_settings(EstimatorConfig(window=2), names)
    assert len(found) == (message is not None)
    assert not message or found[0].startswith(message)


OWN = """
    import jax.numpy as jnp

    from mbpo_jax.config import EstimatorRecord
    from mbpo_jax.laboratory.estimators.catalogue import load_estimator
    from mbpo_jax.laboratory.estimators.estimator import Estimate, Estimator
    from mbpo_jax.laboratory.problems.closed_form import make_one_step_problem

    def make_half():
        rp = load_estimator("rp")

        def estimate(config, params, problem, noise):
            return Estimate(0.5 * rp.estimate(config, params, problem, noise).gradient)

        record = EstimatorRecord("half of rp", "mine", biased="by a half", differentiates=True)
        return Estimator(estimate, record=record)

    def make_cubic(slope=1.0):
        return make_one_step_problem("cubic", lambda x: slope * x**3, 1.0, 0.5)

    def make_bare():
        return Estimator(lambda config, params, problem, noise: params)

    def make_misnamed():
        record = EstimatorRecord("", "", needs=("critc",), uses=("nonsense",))
        return Estimator(lambda *_: None, record=record)

    def nothing():
        return 1

    def too_much(problem):
        return problem
"""


@pytest.fixture
def own(monkeypatch, tmp_path) -> Iterator[str]:
    """Write a module with estimators and problems of one's own."""
    monkeypatch.chdir(tmp_path)
    name = f"halved_{tmp_path.name}"
    Path(f"{name}.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def test_an_estimator_and_a_problem_of_ones_own_are_measured_like_any_other(own):
    small = {"batches": 32, "reference_batches": 32, "resamples": 50}
    half = f"{own}:make_half"
    config = StudyConfig(estimators=("rp", half), horizons=(1,), batch_sizes=(8,), **small)
    rp, halved = study(make_problem(f"{own}:make_cubic", slope=2.0), config)
    assert (halved["estimator"], halved["problem"]) == (half, "cubic")
    assert halved["biased_by_design"]
    np.testing.assert_allclose(halved["signal"], 0.25 * rp["signal"], rtol=1e-9)
    assert halved["vjps"] == rp["vjps"] > 0
    assert load_estimator(half).record.maker == half


@pytest.mark.slow
def test_the_command_takes_both_by_import_path(own, capsys):
    command = f"variance --problem {own}:make_cubic --estimators rp,{own}:make_half"
    sizes = "--horizons 1 --batches 32 --batch-sizes 4 --reference-batches 32 --out found"
    assert cli.main([*command.split(), *sizes.split(), "--precision", "float32"]) == 0
    assert f"{own}:make_half" in capsys.readouterr().out
    page = Path("found", "report.html").read_text()
    assert "half of rp (mine)" in page


def test_what_is_wrong_with_one_of_ones_own_is_named(own):
    for make, kind in ((load_estimator, "estimator"), (make_problem, "problem")):
        for name, message in (
            ("no_such:make", f"{kind}: cannot import"),
            (f"{own}:nothing", f"{kind}: .* returned int where an? mbpo_jax.laboratory"),
        ):
            with pytest.raises(ConfigError, match=message):
                make(name)
    with pytest.raises(ConfigError, match=r"def too_much\(\):"):
        load_estimator(f"{own}:too_much")
    with pytest.raises(ConfigError) as error:
        load_estimator(f"{own}:make_misnamed")
    assert "has needs='critc'; did you mean critic" in error.value.args[0]
    assert "has uses='nonsense'" in error.value.args[1]
    problem = make_problem("quadratic")
    noise = draw_batches(jax.random.key(0), "rp", problem, 1, 2, 3)
    bare = f"{own}:make_bare"
    with pytest.raises(ConfigError, match=r"make_bare estimates .* a gradient \(2,\) is needed"):
        estimate_batches(bare, EstimatorConfig(), problem.params, problem, noise)
